//! Replies as servers really send them: bare LF, code-only lines, long lines, GB18030 text.

use std::collections::VecDeque;

use shared::reply::Reply;

/// A line longer than this, in bytes, is no reply.
const LINE_LIMIT: usize = 64 * 1024;

/// How much of a line, in bytes, and how many lines of a reply are kept. RFC 5321 §4.5.3.1.5 allows 512 a line.
const KEPT_LINE: usize = 800;
const KEPT_LINES: usize = 60;

/// Not a reply of RFC 5321.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled(pub(super) String);

/// Reads replies from bytes in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct Replies {
    line: Vec<u8>,
    reply: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    code: u16,
    lines: Vec<String>,
}

impl Replies {
    /// Whether a line or a reply has begun and not ended.
    pub(super) fn has_partial(&self) -> bool {
        !self.line.is_empty() || self.reply.is_some()
    }

    /// Takes in bytes; gives out whole replies, and their lines made regular.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        heard: &mut VecDeque<Reply>,
        regular: &mut VecDeque<u8>,
    ) -> Result<(), Garbled> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            self.line.extend_from_slice(line);
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, heard, regular)?;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LINE_LIMIT {
            return Err(Garbled("the server's answer has no end".into()));
        }
        Ok(())
    }

    fn take_line(
        &mut self,
        line: &[u8],
        heard: &mut VecDeque<Reply>,
        regular: &mut VecDeque<u8>,
    ) -> Result<(), Garbled> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, is_last, text) = parse(line)?;
        let reply = self.reply.get_or_insert(Partial { code, lines: Vec::new() });
        if reply.code != code {
            return Err(Garbled(format!("a reply that begins with {} goes on with {code}", reply.code)));
        }
        if reply.lines.len() < KEPT_LINES || is_last {
            let mark = if is_last { ' ' } else { '-' };
            // lettre wants a name in the answer to EHLO; in a challenge nothing is something.
            let shown = if text.is_empty() && code != 334 { "-" } else { &text };
            regular.extend(format!("{code}{mark}{shown}\r\n").bytes());
            reply.lines.push(text);
        }
        if is_last && let Some(reply) = self.reply.take() {
            heard.push_back(Reply::new(reply.code, &join(&reply.lines)));
        }
        Ok(())
    }
}

/// Joins a reply's lines: by line feeds where each is a keyword of its own (EHLO), so that nothing is lost; the
/// enhanced code that each line of one answer repeats is taken off all but the first.
fn join(lines: &[String]) -> String {
    let code = lines.first().and_then(|first| shared::reply::Enhanced::parse_prefix(first));
    let prefix = code.map(|code| code.to_string());
    let mut joined = String::new();
    for (n, line) in lines.iter().enumerate() {
        let line = match &prefix {
            Some(prefix) if n > 0 => line.strip_prefix(prefix.as_str()).unwrap_or(line).trim_start(),
            _ => line,
        };
        if n > 0 {
            joined.push('\n');
        }
        joined.push_str(line);
    }
    joined
}

fn parse(line: &[u8]) -> Result<(u16, bool, String), Garbled> {
    let garbled = || Garbled(format!("not an SMTP reply: {:?}", decode(&line[..line.len().min(60)])));
    let (code, rest) = line.split_at_checked(3).ok_or_else(garbled)?;
    let code = std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
    let code: u16 = code.and_then(|code| code.parse().ok()).ok_or_else(garbled)?;
    if !(200..600).contains(&code) {
        return Err(garbled());
    }
    match rest.split_first() {
        None => Ok((code, true, String::new())),
        Some((b' ', text)) => Ok((code, true, decode(text))),
        Some((b'-', text)) => Ok((code, false, decode(text))),
        Some(_) => Err(garbled()),
    }
}

/// UTF-8, else GB18030, as Chinese providers send; without control characters, cut to [`KEPT_LINE`].
fn decode(text: &[u8]) -> String {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.into(),
        Err(_) => encoding_rs::GB18030.decode_without_bom_handling(text).0,
    };
    let mut kept = String::with_capacity(text.len().min(KEPT_LINE));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if kept.len() + c.len_utf8() > KEPT_LINE {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(Vec<Reply>, String), Garbled> {
        let (mut replies, mut heard, mut regular) = (Replies::default(), VecDeque::new(), VecDeque::new());
        for piece in pieces {
            replies.read(piece, &mut heard, &mut regular)?;
        }
        assert!(!replies.has_partial());
        Ok((heard.into(), String::from_utf8(regular.into()).unwrap()))
    }

    #[test]
    fn irregular_replies_become_regular() {
        for (sent, code, text, regular) in [
            (&b"250 ok\r\n"[..], 250, "ok", "250 ok\r\n"),
            (b"250\r\n", 250, "", "250 -\r\n"),
            (b"250\n", 250, "", "250 -\r\n"),
            (b"250-a\n250 b\n", 250, "a\nb", "250-a\r\n250 b\r\n"),
            (
                b"550-5.1.1 no\r\n550 5.1.1 such user\r\n",
                550,
                "5.1.1 no\nsuch user",
                "550-5.1.1 no\r\n550 5.1.1 such user\r\n",
            ),
        ] {
            let (replies, lines) = read(&[sent]).unwrap();
            assert_eq!((replies[0].code, replies[0].text.as_str(), lines.as_str()), (code, text, regular));
        }
    }

    #[test]
    fn chinese_text_is_read_in_either_character_set() {
        let text = "535 Error: 请使用授权码登录";
        let (gbk, _, _) = encoding_rs::GB18030.encode(text);
        for sent in [text.as_bytes(), &gbk] {
            let (replies, _) = read(&[sent, b"\r\n"]).unwrap();
            assert_eq!((replies[0].code, replies[0].text.as_str()), (535, "Error: 请使用授权码登录"));
        }
    }

    #[test]
    fn pieces_and_several_replies_at_once_are_the_same() {
        let sent = b"250-a\r\n250 b\r\n354 go\r\n";
        let whole = read(&[sent]).unwrap();
        let bytes: Vec<&[u8]> = sent.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), whole);
        assert_eq!(whole.0.len(), 2);
    }

    #[test]
    fn long_lines_are_cut_and_what_is_no_reply_is_refused() {
        let (replies, lines) = read(&[b"250 ", "é".repeat(5_000).as_bytes(), b"\r\n"]).unwrap();
        assert!(replies[0].text.len() <= KEPT_LINE && lines.len() <= KEPT_LINE + 8);
        for bad in
            [&b"hello\r\n"[..], b"25\r\n", b"250_ok\r\n", b"199 x\r\n", b"250-a\r\n251 b\r\n", b"+50 a\r\n"]
        {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
        assert!(read(&[&vec![b'x'; LINE_LIMIT + 1]]).is_err());
    }
}
