//! Words into lines of a bounded width.

/// The width of a line, in columns (RFC 3676 §4.2 asks for 78 at most).
const WIDTH: usize = 76;

/// How wide the prefix of a line may be: what is nested deeper is indented no further.
const PREFIX: usize = 40;

/// What may come before a word in its line.
const SPACES: &str = "  ";

/// The text so far; its last line may go on.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    /// The columns of the last line that are taken. The line is begun with its first word: until then there are none.
    column: usize,
    /// What the lines that follow begin with, in ASCII: the markers of lists and quotes.
    prefix: String,
    /// The same for the line that comes next. As long as the other.
    first: String,
    /// How much of the prefix is that of blank lines: what the text before them and the text after them share.
    shared: usize,
}

impl Lines {
    pub(super) const fn column(&self) -> usize {
        self.column
    }

    /// The columns of a line that its prefix leaves.
    pub(super) const fn room(&self) -> usize {
        WIDTH - self.prefix.len()
    }

    /// The columns that a word has room in beside what the line has, after so many spaces.
    pub(super) fn free(&self, lead: usize) -> usize {
        let taken = if self.column == 0 { self.prefix.len() } else { self.column + lead };
        WIDTH.saturating_sub(taken)
    }

    /// Puts a word into the line or, where it has no room, into the next. No word is broken.
    pub(super) fn put(&mut self, word: &str, width: usize, lead: usize) {
        if self.column > 0 && self.column + lead + width > WIDTH {
            self.end_line();
        }
        if self.column == 0 {
            self.text.push_str(&self.first);
            self.column = self.first.len();
            self.first.clone_from(&self.prefix);
        } else {
            let spaces = SPACES.get(..lead).unwrap_or(SPACES);
            self.text.push_str(spaces);
            self.column += spaces.len();
        }
        self.text.push_str(word);
        self.column += width;
    }

    /// Puts the bar before a cell, unless the line begins with it.
    pub(super) fn put_bar(&mut self) {
        if self.column > 0 {
            self.put("|", 1, 1);
        }
    }

    /// Ends the line so many times.
    pub(super) fn end(&mut self, times: usize) {
        if self.text.is_empty() {
            return;
        }
        self.end_line();
        let blank = self.prefix[..self.shared.min(self.prefix.len())].trim_end();
        for _ in 1..times {
            self.text.push_str(blank);
            self.text.push('\n');
        }
    }

    /// The line will end; the prefix may yet change before the next begins.
    pub(super) fn begin_gap(&mut self) {
        self.shared = self.prefix.len();
    }

    fn end_line(&mut self) {
        let length = self.text.trim_end_matches(' ').len();
        self.text.truncate(length);
        self.text.push('\n');
        self.column = 0;
    }

    /// Indents the lines that follow, the first of them by `first`. Gives the length to go back to.
    pub(super) fn indent(&mut self, first: &str, rest: &str) -> usize {
        let length = self.prefix.len();
        if length + rest.len() <= PREFIX {
            self.prefix.push_str(rest);
            self.first.push_str(first);
        }
        length
    }

    pub(super) fn outdent(&mut self, length: usize) {
        self.prefix.truncate(length);
        self.first.truncate(length);
        self.shared = self.shared.min(length);
    }

    pub(super) fn finish(mut self, notes: &str) -> String {
        if self.text.is_empty() {
            return self.text;
        }
        self.end_line();
        if !notes.is_empty() {
            self.text.push('\n');
            self.text.push_str(notes);
        }
        self.text
    }
}
