//! The elements that are open: which end when another begins or ends, and what each has to undo.
//!
//! A light form of HTML's tree construction (§13.2.6): what mails and their editors leave out or nest wrongly ends
//! where browsers end it. Depth is bounded, and with it the work of a tag.

mod effects;

use super::flow::Flow;
use super::links::{Links, Target};
use super::tag::{Attributes, Name, Role};

/// How many open elements are known. Elements further in show their text, without more.
const DEPTH: usize = 256;

#[derive(Debug)]
struct Open {
    name: Name,
    role: Role,
    effect: Effect,
}

/// What an element's end undoes.
#[derive(Debug)]
enum Effect {
    None,
    Hidden,
    Preformatted,
    /// The prefix of its lines, back to this length.
    Indent(usize),
    List,
    Link(Target),
    Table,
}

/// A list that is open: its next number, where it has numbers.
type List = Option<i32>;

/// The document as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct Document {
    flow: Flow,
    links: Links,
    open: Vec<Open>,
    /// How many elements are open beyond [`DEPTH`].
    beyond: usize,
    hidden: usize,
    preformatted: usize,
    paragraphs: usize,
    /// How many inline elements are among the open ones: those that hide, are links, or are in hidden ones.
    inline: usize,
    lists: Vec<List>,
    /// For each open table whether it is for data.
    tables: Vec<bool>,
    /// Whether the text that comes is the content of an element such as a script.
    raw: bool,
}

impl Document {
    /// The text as it is sent.
    pub(super) fn finish(mut self) -> String {
        while self.pop() {}
        self.flow.finish(self.links.notes())
    }

    pub(super) fn text(&mut self, text: &str) {
        if self.hidden > 0 || self.raw {
            return;
        }
        if self.preformatted > 0 { self.flow.preformatted(text) } else { self.flow.text(text) }
    }

    /// A start tag. `raw`: what follows is its text up to its end tag.
    pub(super) fn open(&mut self, name: &[u8], attributes: &Attributes, raw: bool) {
        let role = Role::of(name);
        self.raw = raw && role != Role::Preformatted;
        if self.raw {
            return;
        }
        self.end_implied(role);
        let name = Name::of(name);
        match role {
            Role::Void => {}
            Role::Break | Role::Rule | Role::Image => {
                if self.hidden == 0 && !attributes.hide() {
                    self.place(role, attributes);
                }
            }
            _ if self.open.len() == DEPTH => {
                self.beyond += usize::from(!role.is_inline());
                self.gap(role.gap());
            }
            _ if self.hidden > 0 => self.push(name, role, Effect::None),
            _ if role == Role::Hidden || attributes.hide() => {
                self.hidden += 1;
                self.push(name, role, Effect::Hidden);
            }
            Role::Inline => {}
            // Outside of a table they are no elements.
            _ if role.is_in_table() && self.tables.is_empty() => {
                self.begin(role, attributes);
            }
            _ => {
                let effect = self.begin(role, attributes);
                self.push(name, role, effect);
            }
        }
    }

    /// An end tag.
    pub(super) fn close(&mut self, name: &[u8]) {
        if std::mem::take(&mut self.raw) {
            return;
        }
        let role = Role::of(name);
        match role {
            Role::Void | Role::Image | Role::Rule => return,
            Role::Break => return self.place_if_shown(Role::Break),
            _ if role.is_inline() && self.inline == 0 => return,
            _ if self.beyond > 0 && !role.is_inline() => {
                self.beyond -= 1;
                return self.gap(role.gap());
            }
            _ => {}
        }
        let name = Name::of(name);
        let found = self.find(
            |open| open.name == name || role == Role::Heading && open.role == Role::Heading,
            |open| match role {
                Role::Table | Role::Hidden => false,
                _ if role.is_in_table() => open.role == Role::Table,
                Role::Link => open.role.is_cell() || open.role == Role::Table,
                _ if role.is_inline() => !open.role.is_inline(),
                _ => open.role.is_cell() || open.role == Role::Table,
            },
        );
        match found {
            // Blocks that a link holds go on without it.
            Some(at) if role == Role::Link => {
                let link = self.open.remove(at);
                self.end(link);
            }
            Some(at) => self.pop_to(at),
            // As browsers take it: an empty paragraph.
            None if role == Role::Paragraph => self.gap(2),
            None => {}
        }
    }

    /// Ends the elements that end where this one begins (HTML §13.1.2.4).
    fn end_implied(&mut self, role: Role) {
        let to = match role {
            Role::Item => self.find(
                |open| open.role == Role::Item,
                |open| {
                    matches!(open.role, Role::Bullets | Role::Numbers | Role::Table) || open.role.is_cell()
                },
            ),
            Role::Term | Role::Definition => self.find(
                |open| matches!(open.role, Role::Term | Role::Definition),
                |open| matches!(open.role, Role::Definitions | Role::Table) || open.role.is_cell(),
            ),
            Role::Link if self.inline > 0 => self
                .find(|open| open.role == Role::Link, |open| open.role.is_cell() || open.role == Role::Table),
            _ if role.is_in_table() && !(self.tables.is_empty() && self.hidden == 0) => {
                let outer = |open: &Open| match role {
                    Role::RowGroup => open.role == Role::Table,
                    Role::Row => matches!(open.role, Role::Table | Role::RowGroup),
                    _ => matches!(open.role, Role::Table | Role::RowGroup | Role::Row),
                };
                self.find(outer, |_| false).map(|at| at + 1)
            }
            _ => None,
        };
        if let Some(to) = to {
            self.pop_to(to);
        }
        if self.paragraphs > 0 && role.ends_paragraph() {
            let paragraph = self.find(
                |open| open.role == Role::Paragraph,
                |open| open.role.is_cell() || open.role == Role::Table,
            );
            if let Some(at) = paragraph {
                self.pop_to(at);
            }
        }
    }

    /// The innermost open element that is sought, unless one that bars the way is further in.
    fn find(&self, sought: impl Fn(&Open) -> bool, bars: impl Fn(&Open) -> bool) -> Option<usize> {
        let at = self.open.iter().rposition(|open| sought(open) || bars(open))?;
        sought(&self.open[at]).then_some(at)
    }

    fn push(&mut self, name: Name, role: Role, effect: Effect) {
        self.paragraphs += usize::from(role == Role::Paragraph);
        self.inline += usize::from(role.is_inline());
        self.open.push(Open { name, role, effect });
    }

    fn pop_to(&mut self, length: usize) {
        while self.open.len() > length && self.pop() {}
    }

    fn pop(&mut self) -> bool {
        let open = self.open.pop();
        open.map(|open| self.end(open)).is_some()
    }
}
