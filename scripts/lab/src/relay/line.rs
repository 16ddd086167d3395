//! The relay's end of a connection: lines in, replies out, and how often the client was waited for.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Shared;

/// A socket, protected or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) struct Line {
    io: Box<dyn Io>,
    shared: Arc<Shared>,
    read: Vec<u8>,
    /// How much of `read` has been used.
    at: usize,
    /// Replies that have not gone out: like a real server it answers a group at once (RFC 2920 §3.2).
    out: Vec<u8>,
    has_replied: bool,
    group: usize,
}

impl Line {
    pub(super) fn new(io: Box<dyn Io>, shared: Arc<Shared>) -> Self {
        Self { io, shared, read: Vec::new(), at: 0, out: Vec::new(), has_replied: false, group: 0 }
    }

    /// The socket and what had been read of it.
    pub(super) fn into_io(self) -> (Box<dyn Io>, bool) {
        let is_empty = self.at == self.read.len();
        (self.io, is_empty)
    }

    /// A reply: its lines without codes.
    pub(super) fn reply(&mut self, code: u16, lines: &[&str]) {
        let form = self.shared.script().form;
        for (n, text) in lines.iter().enumerate() {
            let mark = if n + 1 == lines.len() { ' ' } else { '-' };
            // A challenge is its text.
            let line = if form.code_only && lines.len() == 1 && code != 334 {
                code.to_string()
            } else {
                format!("{code}{mark}{text}")
            };
            if form.gbk {
                self.out.extend_from_slice(&encoding_rs::GB18030.encode(&line).0);
            } else {
                self.out.extend_from_slice(line.as_bytes());
            }
            self.out.extend_from_slice(if form.bare_lf { b"\n" } else { b"\r\n" });
        }
    }

    /// A reply by its code and its text, whose lines are set apart by line feeds; what has no code goes out as it is.
    pub(super) fn say(&mut self, reply: &str) {
        let (code, text) = reply.split_once(' ').unwrap_or((reply, ""));
        match code.parse() {
            Ok(code) => self.reply(code, &text.split('\n').collect::<Vec<_>>()),
            Err(_) => self.out.extend_from_slice(format!("{reply}\r\n").as_bytes()),
        }
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let (form, round_trip) = self.shared.with(|state| (state.script.form, state.script.round_trip));
        if !round_trip.is_zero() {
            tokio::time::sleep(round_trip).await;
        }
        self.has_replied = true;
        let out = std::mem::take(&mut self.out);
        let size = if form.one_byte { 1 } else { out.len() };
        for piece in out.chunks(size) {
            self.io.write_all(piece).await?;
            self.io.flush().await?;
        }
        Ok(())
    }

    /// The next command, without its line end. None: the client has closed.
    pub(super) async fn command(&mut self) -> io::Result<Option<String>> {
        if !self.fill_line().await? {
            return Ok(None);
        }
        self.group += 1;
        let group = self.group;
        let line = self.take_line();
        let line = String::from_utf8_lossy(&line).into_owned();
        let verb: String = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        self.shared.count(|counts| {
            counts.largest_group = counts.largest_group.max(group);
            *counts.commands.entry(verb).or_default() += 1;
        });
        Ok(Some(line))
    }

    /// A line that is no command: the answer to a challenge.
    pub(super) async fn answer(&mut self) -> io::Result<Option<String>> {
        if !self.fill_line().await? {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&self.take_line()).into_owned()))
    }

    /// The content up to the final dot, with the dots that SMTP adds taken off. None: the client has closed before.
    pub(super) async fn content(&mut self) -> io::Result<Option<String>> {
        let mut source = Vec::new();
        loop {
            if !self.fill_line().await? {
                return Ok(None);
            }
            let line = self.take_line();
            if line == b"." {
                return Ok(Some(String::from_utf8_lossy(&source).into_owned()));
            }
            source.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            source.extend_from_slice(b"\r\n");
        }
    }

    /// Waits until some content has come.
    pub(super) async fn some_content(&mut self) -> io::Result<bool> {
        self.flush().await?;
        if self.at < self.read.len() {
            return Ok(true);
        }
        self.fill().await
    }

    /// Makes sure of a whole line.
    async fn fill_line(&mut self) -> io::Result<bool> {
        let mut seen = self.at;
        loop {
            if self.read[seen..].contains(&b'\n') {
                return Ok(true);
            }
            seen = self.read.len() - self.at;
            self.read.drain(..self.at);
            self.at = 0;
            self.flush().await?;
            if !self.fill().await? {
                return Ok(false);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        if std::mem::take(&mut self.has_replied) {
            self.shared.count(|counts| counts.round_trips += 1);
            self.group = 0;
        }
        self.read.reserve(64 * 1024);
        Ok(self.io.read_buf(&mut self.read).await? > 0)
    }

    fn take_line(&mut self) -> Vec<u8> {
        let rest = &self.read[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).to_vec();
        self.at += end + 1;
        line
    }
}
