//! Where links lead to: footnotes.

use std::collections::HashMap;
use std::fmt::Write;

/// The schemes that are of use outside a browser.
const SCHEMES: [&str; 4] = ["https:", "http:", "mailto:", "tel:"];

/// A link's target, in one word.
#[derive(Debug)]
pub(super) struct Target(String);

impl Target {
    /// The target of an `href`; not one that leads nowhere from a mail: a script, or a place in the page.
    pub(super) fn parse(href: &str) -> Option<Self> {
        let href = href.trim_matches(|c: char| c <= ' ');
        let starts =
            |scheme: &&str| href.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        let scheme = SCHEMES.iter().find(|scheme| starts(scheme))?;
        if href.len() == scheme.len() {
            return None;
        }
        let mut target = String::with_capacity(href.len());
        for c in href.chars() {
            match c {
                // As a browser reads it (URL §4.4).
                '\t' | '\n' | '\r' => {}
                c if c.is_whitespace() || c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        write!(target, "%{byte:02X}").ok();
                    }
                }
                c => target.push(c),
            }
        }
        Some(Self(target))
    }

    /// Whether a text says it already.
    pub(super) fn is_said_by(&self, text: &str) -> bool {
        let target = self.0.as_str();
        let said = [
            Some(target),
            target.strip_suffix('/'),
            target.strip_prefix("mailto:"),
            target.strip_prefix("tel:"),
        ];
        said.contains(&Some(text))
    }
}

/// The footnotes of a document, one for each target.
#[derive(Debug, Default)]
pub(super) struct Links {
    numbers: HashMap<String, usize>,
    notes: String,
}

impl Links {
    /// The number of a target, from 1.
    pub(super) fn number(&mut self, target: Target) -> usize {
        let next = self.numbers.len() + 1;
        *self.numbers.entry(target.0).or_insert_with_key(|target| {
            writeln!(self.notes, "[{next}]: {target}").ok();
            next
        })
    }

    /// The footnotes, a line each.
    pub(super) fn notes(&self) -> &str {
        &self.notes
    }
}
