//! Characters, by what they are: visible, white space that collapses or is kept, or nothing for a reader.

use unicode_width::UnicodeWidthChar;

use super::super::kinsoku;
use super::{Flow, Link};

/// A word with no-break spaces that is wider is broken at the next one: some editors write all spaces so.
const UNBROKEN: usize = 40;

impl Flow {
    /// Text in which white space is one space.
    pub(in super::super) fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(&first) = rest.as_bytes().first() {
            if first.is_ascii_graphic() {
                let words = self.words(rest);
                if words > 0 {
                    rest = &rest[words..];
                    continue;
                }
                let length = rest.bytes().position(|b| !b.is_ascii_graphic()).unwrap_or(rest.len());
                let (run, after) = rest.split_at(length);
                self.ascii(run);
                rest = after;
            } else {
                let mut chars = rest.chars();
                if let Some(c) = chars.next() {
                    self.character(c);
                }
                rest = chars.as_str();
            }
        }
    }

    /// Puts the words that begin a text into the line, all at once, where nothing can come between them: ASCII, single
    /// spaces, no link to frame. Gives their length, up to the space before a word that is read by itself.
    fn words(&mut self, text: &str) -> usize {
        if !matches!(self.link, Link::None) {
            return 0;
        }
        self.begin_word();
        if !self.word.text.is_empty() {
            return 0;
        }
        let room = self.lines.free(self.word.lead);
        let (mut length, mut before) = (0, b'x');
        for (at, &byte) in text.as_bytes().iter().enumerate().take(room + 1) {
            match byte {
                b' ' if before == b' ' => break,
                b' ' => length = at,
                b'!'..=b'~' => {}
                _ => break,
            }
            before = byte;
        }
        if length > 0 {
            self.lines.put(&text[..length], length, self.word.lead);
            self.word.lead = 0;
        }
        length
    }

    /// Visible ASCII characters, at least one.
    fn ascii(&mut self, run: &str) {
        self.begin_word();
        if let Some(c) = run.chars().next() {
            self.break_before(c);
        }
        self.word.text.push_str(run);
        self.word.width += run.len();
        self.word.last = run.chars().next_back();
    }

    /// A character that is not visible ASCII.
    fn character(&mut self, c: char) {
        match c {
            // No-break spaces.
            '\u{a0}' | '\u{2007}' | '\u{202f}' => {
                let in_word =
                    !self.word.text.is_empty() && self.gap == 0 && self.space == 0 && self.bars == 0;
                if in_word && self.word.width < UNBROKEN {
                    self.word.glue = true;
                } else {
                    self.space(1);
                }
            }
            '\u{3000}' if self.begins_line() => self.indent += 1,
            '\u{3000}' => self.space(2),
            // A zero-width space is a place to break.
            '\u{200b}' if self.is_in_word() => self.settle(),
            c if c.is_whitespace() => self.space(1),
            c if c.is_control() || kinsoku::is_filler(c) => {}
            c => self.wide(c),
        }
    }

    fn wide(&mut self, c: char) {
        let width = c.width().unwrap_or(0);
        // What takes no room belongs to the character before it, and without one pads a preheader.
        if width == 0 {
            if self.is_in_word() {
                self.word.text.push(c);
                self.word.last = Some(c);
            }
            return;
        }
        self.begin_word();
        self.break_before(c);
        self.push(c, width);
    }

    pub(in super::super) fn begin_preformatted(&mut self) {
        self.first_break = true;
    }

    /// Text whose white space is kept.
    pub(in super::super) fn preformatted(&mut self, text: &str) {
        let text = if std::mem::take(&mut self.first_break) {
            text.strip_prefix('\n').unwrap_or(text)
        } else {
            text
        };
        for c in text.chars() {
            match c {
                '\n' => {
                    self.set_gap(self.gap + 1);
                    self.space = 0;
                }
                '\t' => {
                    let column = if self.gap > 0 { 0 } else { self.lines.column() + self.word.width };
                    self.space += 8 - (column + self.space) % 8;
                }
                c if c.is_control() || kinsoku::is_filler(c) => {}
                c if c.is_whitespace() => self.space += c.width().unwrap_or(1),
                c => {
                    let spaces = std::mem::take(&mut self.space);
                    self.begin_word();
                    self.word.text.extend(std::iter::repeat_n(' ', spaces));
                    self.push(c, c.width().unwrap_or(0));
                    self.word.width += spaces;
                }
            }
        }
    }
}
