//! What elements do to the layout when they begin and end.

use super::super::links::Target;
use super::super::tag::{Attribute, Attributes, Role};
use super::{Document, Effect, List, Open};

/// The columns by which a definition is indented.
const INDENT: &str = "    ";

impl Document {
    /// Shows an element that has no content.
    pub(super) fn place(&mut self, role: Role, attributes: &Attributes) {
        match role {
            Role::Break => self.flow.line_break(),
            Role::Rule => self.flow.rule(),
            _ => {
                let alt = attributes.value(Attribute::Alt).unwrap_or_default();
                if !alt.trim().is_empty() {
                    self.flow.space(1);
                    self.flow.text(alt);
                    self.flow.space(1);
                }
            }
        }
    }

    pub(super) fn place_if_shown(&mut self, role: Role) {
        if self.hidden == 0 {
            self.place(role, &Attributes::default());
        }
    }

    pub(super) fn gap(&mut self, gap: usize) {
        if self.hidden == 0 {
            self.flow.gap(gap);
        }
    }

    /// Begins an element that is shown.
    pub(super) fn begin(&mut self, role: Role, attributes: &Attributes) -> Effect {
        let is_list = matches!(role, Role::Bullets | Role::Numbers);
        self.flow.gap(if is_list && !self.lists.is_empty() { 1 } else { role.gap() });
        match role {
            Role::Quote => Effect::Indent(self.flow.indent("> ", "> ")),
            Role::Definition => Effect::Indent(self.flow.indent(INDENT, INDENT)),
            Role::Preformatted => {
                self.preformatted += 1;
                self.flow.begin_preformatted();
                Effect::Preformatted
            }
            Role::Bullets => self.begin_list(None),
            Role::Numbers => self.begin_list(Some(attributes.number(Attribute::Start).unwrap_or(1))),
            Role::Item => {
                let marker = match self.lists.last_mut() {
                    Some(Some(next)) => {
                        let number = attributes.number(Attribute::Value).unwrap_or(*next);
                        *next = number.saturating_add(1);
                        format!("{number}. ")
                    }
                    _ => "* ".to_owned(),
                };
                Effect::Indent(self.flow.indent_item(&marker))
            }
            Role::Table => {
                let border = attributes.value(Attribute::Border).map(str::trim);
                self.tables.push(border.is_some_and(|border| !matches!(border, "0" | "0px" | "none")));
                Effect::Table
            }
            Role::HeadCell | Role::Cell => {
                if let Some(table) = self.tables.last_mut() {
                    *table |= role == Role::HeadCell;
                }
                self.flow.cell(self.tables.last() == Some(&true));
                Effect::None
            }
            Role::Link => match attributes.value(Attribute::Href).and_then(Target::parse) {
                Some(target) => {
                    self.flow.begin_link();
                    Effect::Link(target)
                }
                None => Effect::None,
            },
            _ => Effect::None,
        }
    }

    fn begin_list(&mut self, next: List) -> Effect {
        self.lists.push(next);
        Effect::List
    }

    /// Ends an element that has been taken from the open ones.
    pub(super) fn end(&mut self, open: Open) {
        self.paragraphs -= usize::from(open.role == Role::Paragraph);
        self.inline -= usize::from(open.role.is_inline());
        let mut gap = open.role.gap();
        match open.effect {
            Effect::Hidden => {
                self.hidden -= 1;
                return;
            }
            Effect::None => {}
            Effect::Preformatted => self.preformatted -= 1,
            Effect::Indent(length) => self.flow.outdent(length),
            Effect::List => {
                self.lists.pop();
                gap = if self.lists.is_empty() { 2 } else { 1 };
            }
            Effect::Table => {
                self.tables.pop();
            }
            Effect::Link(target) => {
                // A link that shows nothing has no place for a number; one that says its target needs none.
                let said = self.flow.link_word().is_some_and(|text| target.is_said_by(text));
                let noted = self.flow.link_is_shown() && !said;
                let number = noted.then(|| self.links.number(target));
                self.flow.end_link(number);
            }
        }
        self.gap(gap);
    }
}
