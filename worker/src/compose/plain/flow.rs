//! Text into words, and words into blocks: white space, separators, markers, the frames of links.
//!
//! Whatever lies between two words is only noted, and takes effect with the second: what ends a block, a cell or the
//! document leaves nothing behind.

mod characters;

use super::kinsoku;
use super::lines::Lines;

/// Where a link's text begins.
#[derive(Debug, Default)]
enum Link {
    #[default]
    None,
    /// Nothing of it has been shown yet.
    Waits,
    /// Within the word: at the byte of its bracket.
    InWord(usize),
    /// In an earlier word.
    Earlier,
}

/// The word that is being read. It may come in pieces, from several elements.
#[derive(Debug, Default)]
struct Word {
    text: String,
    width: usize,
    /// Its last character.
    last: Option<char>,
    /// It is known to hold a URL.
    is_url: bool,
    /// A no-break space comes before its next character.
    glue: bool,
    /// The spaces before it, where it does not begin a line.
    lead: usize,
}

/// The text as far as it has been laid out.
#[derive(Debug, Default)]
pub(super) struct Flow {
    lines: Lines,
    word: Word,
    link: Link,
    /// The line ends before the next word, so many times.
    gap: usize,
    /// Spaces before the next word.
    space: usize,
    /// Wide spaces that begin the line, as those of Chinese paragraphs.
    indent: usize,
    /// Cells of a table for data that have begun in the row since the last word.
    bars: usize,
    /// The line break right after `<pre>` is none of its text.
    first_break: bool,
}

impl Flow {
    /// Ends the line: with 2, a blank line follows.
    pub(super) fn gap(&mut self, gap: usize) {
        if gap > self.gap {
            self.set_gap(gap);
        }
    }

    fn set_gap(&mut self, gap: usize) {
        if self.gap == 0 {
            self.lines.begin_gap();
        }
        self.gap = gap;
        self.indent = 0;
    }

    /// More than one give one blank line.
    pub(super) fn line_break(&mut self) {
        self.gap((self.gap + 1).min(2));
    }

    pub(super) fn space(&mut self, width: usize) {
        self.space = self.space.max(width);
    }

    /// Begins a table's cell: after another in its row, it is set off.
    pub(super) fn cell(&mut self, is_data: bool) {
        self.space(2);
        self.bars += usize::from(is_data && self.gap == 0);
    }

    pub(super) fn rule(&mut self) {
        self.gap(1);
        // It is no text of a link that it stands in.
        let link = std::mem::take(&mut self.link);
        self.begin_word();
        let dashes = self.lines.room();
        self.word.text.extend(std::iter::repeat_n('-', dashes));
        self.word.width = dashes;
        self.settle();
        self.link = if matches!(link, Link::InWord(_)) { Link::Earlier } else { link };
        self.gap(1);
    }

    /// Indents the lines that follow: the first by one text, the others by another of the same length. Gives what
    /// [`outdent`](Self::outdent) takes.
    pub(super) fn indent(&mut self, first: &str, rest: &str) -> usize {
        // What has been read stands before the indent.
        self.settle();
        self.lines.indent(first, rest)
    }

    /// A list's item hangs from its marker.
    pub(super) fn indent_item(&mut self, marker: &str) -> usize {
        let blank: String = marker.chars().map(|_| ' ').collect();
        self.indent(marker, &blank)
    }

    pub(super) fn outdent(&mut self, length: usize) {
        self.settle();
        self.lines.outdent(length);
    }

    /// Puts the word into its line.
    fn settle(&mut self) {
        if self.word.text.is_empty() {
            return;
        }
        self.lines.put(&self.word.text, self.word.width, self.word.lead);
        self.word.text.clear();
        self.word.width = 0;
        self.word.lead = 0;
        self.word.last = None;
        self.word.is_url = false;
        if matches!(self.link, Link::InWord(_)) {
            self.link = Link::Earlier;
        }
    }

    /// Before a visible character: what has been noted takes effect.
    fn begin_word(&mut self) {
        if self.gap > 0 {
            self.settle();
            self.lines.end(self.gap);
            (self.gap, self.space, self.bars) = (0, 0, 0);
            self.word.glue = false;
        } else if self.space > 0 || self.bars > 0 {
            self.settle();
            for _ in 0..std::mem::take(&mut self.bars) {
                self.lines.put_bar();
                self.space = 1;
            }
            self.word.lead = std::mem::take(&mut self.space);
            self.word.glue = false;
        } else if std::mem::take(&mut self.word.glue) {
            self.word.text.push(' ');
            self.word.width += 1;
            self.word.last = Some(' ');
        }
        for _ in 0..std::mem::take(&mut self.indent) {
            self.push('\u{3000}', 2);
        }
        if matches!(self.link, Link::Waits) {
            self.break_before('[');
            self.link = Link::InWord(self.word.text.len());
            self.push('[', 1);
        }
    }

    /// Whether nothing has been noted since the word's last character.
    fn is_in_word(&self) -> bool {
        !self.word.text.is_empty() && self.gap == 0 && self.space == 0 && self.bars == 0
    }

    fn begins_line(&self) -> bool {
        self.gap > 0 || self.word.text.is_empty() && self.lines.column() == 0
    }

    /// Ends the word before a character where scripts without spaces may break.
    fn break_before(&mut self, next: char) {
        let Some(last) = self.word.last else {
            return;
        };
        if !kinsoku::may_break(last, next) {
            return;
        }
        self.word.is_url = self.word.is_url || self.word.text.contains("://");
        if !self.word.is_url || kinsoku::ends_url(last) || kinsoku::ends_url(next) {
            self.settle();
        }
    }

    fn push(&mut self, c: char, width: usize) {
        self.word.text.push(c);
        self.word.width += width;
        self.word.last = Some(c);
    }

    /// Begins a link: its text is framed when it comes.
    pub(super) fn begin_link(&mut self) {
        self.link = Link::Waits;
    }

    /// Whether the link has shown any text.
    pub(super) const fn link_is_shown(&self) -> bool {
        matches!(self.link, Link::InWord(_) | Link::Earlier)
    }

    /// The link's text so far, where it is one word.
    pub(super) fn link_word(&self) -> Option<&str> {
        match self.link {
            Link::InWord(at) => self.word.text.get(at + 1..),
            _ => None,
        }
    }

    /// Ends the link, with the number of its footnote; without one it is not framed.
    pub(super) fn end_link(&mut self, number: Option<usize>) {
        match (number, std::mem::take(&mut self.link)) {
            (Some(number), _) => {
                let frame = format!("][{number}]");
                self.word.text.push_str(&frame);
                self.word.width += frame.len();
                self.word.last = Some(']');
            }
            (None, Link::InWord(at)) => {
                self.word.text.remove(at);
                self.word.width -= 1;
            }
            (None, _) => {}
        }
    }

    /// The text, with what is said at its end. Empty where there is none.
    pub(super) fn finish(mut self, notes: &str) -> String {
        self.settle();
        self.lines.finish(notes)
    }
}
