//! Elements: their names, what they do to the layout, and the attributes that matter.

/// The name of an element, in lower case: up to eight bytes in one word, a longer one as its hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Name(u64);

impl Name {
    pub(super) fn of(name: &[u8]) -> Self {
        if name.len() <= 8 {
            return Self(name.iter().fold(0, |packed, byte| packed << 8 | u64::from(*byte)));
        }
        // FNV-1a. Names are ASCII: the highest bit keeps the two kinds apart.
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash | 1 << 63)
    }
}

/// What an element does to the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its content goes on in the line.
    Inline,
    Link,
    Image,
    Break,
    Rule,
    /// It has neither content nor a place in the text.
    Void,
    /// Its content is no text for a reader.
    Hidden,
    /// Its content begins and ends lines.
    Block,
    /// The same, with a blank line before and after. It ends where the next block begins.
    Paragraph,
    Heading,
    /// A block with a blank line before and after.
    Section,
    Quote,
    Preformatted,
    Bullets,
    Numbers,
    Item,
    Definitions,
    Term,
    Definition,
    Table,
    RowGroup,
    Row,
    HeadCell,
    Cell,
}

impl Role {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"a" => Self::Link,
            b"img" => Self::Image,
            b"br" => Self::Break,
            b"hr" => Self::Rule,
            b"area" | b"base" | b"basefont" | b"bgsound" | b"col" | b"embed" | b"frame" | b"input"
            | b"link" | b"meta" | b"param" | b"source" | b"track" | b"wbr" | b"html" | b"head" | b"body" => {
                Self::Void
            }
            b"template" | b"svg" | b"datalist" => Self::Hidden,
            b"div" | b"center" | b"article" | b"aside" | b"section" | b"header" | b"footer" | b"main"
            | b"nav" | b"address" | b"form" | b"fieldset" | b"legend" | b"details" | b"summary"
            | b"dialog" | b"dir" | b"menu" | b"hgroup" | b"search" | b"figcaption" | b"option"
            | b"optgroup" | b"caption" => Self::Block,
            b"p" => Self::Paragraph,
            b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" => Self::Heading,
            b"figure" => Self::Section,
            b"blockquote" => Self::Quote,
            b"pre" | b"listing" | b"xmp" | b"plaintext" | b"textarea" => Self::Preformatted,
            b"ul" => Self::Bullets,
            b"ol" => Self::Numbers,
            b"li" => Self::Item,
            b"dl" => Self::Definitions,
            b"dt" => Self::Term,
            b"dd" => Self::Definition,
            b"table" => Self::Table,
            b"thead" | b"tbody" | b"tfoot" => Self::RowGroup,
            b"tr" => Self::Row,
            b"th" => Self::HeadCell,
            b"td" => Self::Cell,
            _ => Self::Inline,
        }
    }

    pub(super) const fn is_inline(self) -> bool {
        matches!(self, Self::Inline | Self::Link | Self::Image | Self::Break | Self::Void | Self::Hidden)
    }

    pub(super) const fn is_cell(self) -> bool {
        matches!(self, Self::Cell | Self::HeadCell)
    }

    /// A part of a table, which only tables know.
    pub(super) const fn is_in_table(self) -> bool {
        matches!(self, Self::RowGroup | Self::Row | Self::Cell | Self::HeadCell)
    }

    /// Whether an open paragraph ends before it (HTML §13.2.6.4.7).
    pub(super) const fn ends_paragraph(self) -> bool {
        !self.is_inline() && !self.is_in_table()
    }

    /// The line ends before and after it: 2 is a blank line.
    pub(super) const fn gap(self) -> usize {
        match self {
            Self::Paragraph
            | Self::Heading
            | Self::Section
            | Self::Quote
            | Self::Preformatted
            | Self::Bullets
            | Self::Numbers
            | Self::Definitions => 2,
            Self::Block
            | Self::Rule
            | Self::Item
            | Self::Term
            | Self::Definition
            | Self::Table
            | Self::RowGroup
            | Self::Row => 1,
            _ => 0,
        }
    }
}

/// An attribute that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    Alt,
    Border,
    Hidden,
    Href,
    Start,
    Style,
    Value,
}

impl Attribute {
    const COUNT: usize = 7;

    pub(super) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"alt" => Some(Self::Alt),
            b"border" => Some(Self::Border),
            b"hidden" => Some(Self::Hidden),
            b"href" => Some(Self::Href),
            b"start" => Some(Self::Start),
            b"style" => Some(Self::Style),
            b"value" => Some(Self::Value),
            _ => None,
        }
    }
}

/// The attributes of a start tag. Used again for the next one: most tags take no memory.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    values: [Vec<u8>; Attribute::COUNT],
    given: [bool; Attribute::COUNT],
}

impl Attributes {
    /// Of two with one name the first counts.
    pub(super) fn begin(&mut self, attribute: Attribute) -> bool {
        let at = attribute as usize;
        if std::mem::replace(&mut self.given[at], true) {
            return false;
        }
        self.values[at].clear();
        true
    }

    pub(super) fn push(&mut self, attribute: Attribute, value: &[u8]) {
        self.values[attribute as usize].extend_from_slice(value);
    }

    pub(super) fn clear(&mut self) {
        self.given = Default::default();
    }

    /// The value; not one that is no UTF-8.
    pub(super) fn value(&self, attribute: Attribute) -> Option<&str> {
        let at = attribute as usize;
        std::str::from_utf8(&self.values[at]).ok().filter(|_| self.given[at])
    }

    pub(super) fn number(&self, attribute: Attribute) -> Option<i32> {
        self.value(attribute)?.trim().parse().ok()
    }

    /// Whether its element is not shown. Mails hide by style what their list in the inbox shows (the preheader),
    /// and what is for another width of the screen.
    pub(super) fn hide(&self) -> bool {
        self.given[Attribute::Hidden as usize] || self.value(Attribute::Style).is_some_and(hides)
    }
}

fn hides(style: &str) -> bool {
    let (mut flat, mut clipped) = (false, false);
    for declaration in style.split(';') {
        let Some((property, value)) = declaration.split_once(':') else {
            continue;
        };
        let (property, value) = (property.trim(), value.trim());
        let is = |name: &str, with: &str| {
            property.eq_ignore_ascii_case(name)
                && value.get(..with.len()).is_some_and(|value| value.eq_ignore_ascii_case(with))
        };
        if is("display", "none") || is("visibility", "hidden") {
            return true;
        }
        // Not a share of one, such as 0.5em.
        flat |= is("max-height", "0") && !value.contains('.');
        clipped |= is("overflow", "hidden");
    }
    flat && clipped
}
