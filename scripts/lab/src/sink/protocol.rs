//! The sink's side of SMTP (RFC 5321, PIPELINING of RFC 2920) without I/O: bytes in, replies out. It takes bytes in
//! any pieces. What a client can do wrong and still be measured is not looked at.

use bytes::{Buf, BytesMut};
use memchr::memmem;

pub(super) const GREETING: &[u8] = b"220 sink ESMTP\r\n";

const EHLO: &[u8] =
    b"250-sink\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n\
250 SMTPUTF8\r\n";

/// A command line longer than this is no SMTP.
const LINE_MAX: usize = 4096;

const DOT: &[u8] = b"\r\n.\r\n";

/// A message that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) recipients: Vec<String>,
    pub(super) message_id: String,
    pub(super) size: u64,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Commands,
    /// After 354; so many bytes of the input are known to hold no final dot.
    Content {
        searched: usize,
    },
    Over,
}

/// One connection's state.
#[derive(Debug, Default)]
pub(super) struct Protocol {
    phase: Phase,
    recipients: Vec<String>,
}

impl Protocol {
    /// Takes what it can from the input, adds the replies, and tells of each message that was taken.
    pub(super) fn advance(
        &mut self,
        input: &mut BytesMut,
        replies: &mut Vec<u8>,
        mut taken: impl FnMut(Taken),
    ) {
        loop {
            match self.phase {
                Phase::Over => return,
                Phase::Content { searched } => {
                    let Some(size) = content_end(input, searched) else {
                        self.phase = Phase::Content { searched: input.len() };
                        return;
                    };
                    taken(Taken {
                        recipients: std::mem::take(&mut self.recipients),
                        message_id: message_id(&input[..size]),
                        size: size as u64,
                    });
                    input.advance(size);
                    self.phase = Phase::Commands;
                    replies.extend_from_slice(b"250 2.0.0 Ok: taken\r\n");
                }
                Phase::Commands => {
                    let Some(end) = memchr::memchr(b'\n', input) else {
                        if input.len() > LINE_MAX {
                            replies.extend_from_slice(b"500 5.5.2 Line too long\r\n");
                            self.phase = Phase::Over;
                        }
                        return;
                    };
                    let line = input.split_to(end + 1);
                    replies.extend_from_slice(self.command(line.trim_ascii_end()));
                }
            }
        }
    }

    /// Whether the connection is to be closed.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn command(&mut self, line: &[u8]) -> &'static [u8] {
        let verb = line
            .get(..4)
            .map(|verb| [verb[0], verb[1], verb[2], verb[3]].map(|byte| byte.to_ascii_uppercase()));
        match verb.as_ref() {
            Some(b"EHLO") => EHLO,
            Some(b"RCPT") => match path(line) {
                Some(recipient) => {
                    self.recipients.push(recipient);
                    b"250 2.1.5 Ok\r\n"
                }
                None => b"501 5.1.3 An address in angle brackets is expected\r\n",
            },
            Some(b"DATA") if self.recipients.is_empty() => b"503 5.5.1 RCPT first\r\n",
            Some(b"DATA") => {
                self.phase = Phase::Content { searched: 0 };
                b"354 End with a dot on a line of its own\r\n"
            }
            Some(b"MAIL" | b"RSET") => {
                self.recipients.clear();
                b"250 2.0.0 Ok\r\n"
            }
            Some(b"QUIT") => {
                self.phase = Phase::Over;
                b"221 2.0.0 Bye\r\n"
            }
            Some(b"HELO" | b"NOOP") => b"250 2.0.0 Ok\r\n",
            _ => b"500 5.5.2 Unknown command\r\n",
        }
    }
}

/// Where the content ends, its final dot included. The dot may have come in pieces, so the search starts a little
/// before the end of what was searched.
fn content_end(input: &[u8], searched: usize) -> Option<usize> {
    if input.starts_with(&DOT[2..]) {
        return Some(DOT.len() - 2);
    }
    let from = searched.saturating_sub(DOT.len() - 1);
    memmem::find(&input[from..], DOT).map(|at| from + at + DOT.len())
}

fn path(line: &[u8]) -> Option<String> {
    let start = memchr::memchr(b'<', line)? + 1;
    let end = start + memchr::memchr(b'>', &line[start..])?;
    Some(String::from_utf8_lossy(&line[start..end]).into_owned())
}

/// The Message-ID without its brackets, from the header section. A name that is written `Message-Id` counts too.
fn message_id(content: &[u8]) -> String {
    let head = &content[..memmem::find(content, b"\r\n\r\n").unwrap_or(content.len())];
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(b"message-id:".len())?;
            name.eq_ignore_ascii_case(b"message-id:").then(|| value.trim_ascii())
        })
        .map(|id| String::from_utf8_lossy(id).trim_matches(['<', '>']).to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &[u8] = b"EHLO me\r\nMAIL FROM:<a@x.org> BODY=8BITMIME\r\nRCPT TO:<b1@x.org>\r\nDATA\r\n\
Message-Id: <one@x.org>\r\n\r\nA line\r\n..\r\n.\r\nMAIL FROM:<a@x.org>\r\nrcpt to:<b2@x.org>\r\nRCPT TO:<b3@x.org>\r\n\
DATA\r\n.\r\nQUIT\r\n";

    fn run(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<Taken>, Vec<u16>, bool) {
        let (mut protocol, mut input) = (Protocol::default(), BytesMut::new());
        let (mut replies, mut taken) = (Vec::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(&piece);
            protocol.advance(&mut input, &mut replies, |message| taken.push(message));
        }
        let codes = String::from_utf8(replies)
            .unwrap()
            .lines()
            .filter(|line| !line[3..].starts_with('-'))
            .map(|line| line[..3].parse().unwrap())
            .collect();
        (taken, codes, protocol.is_over())
    }

    fn expected() -> (Vec<Taken>, Vec<u16>, bool) {
        let first = Taken { recipients: vec!["b1@x.org".into()], message_id: "one@x.org".into(), size: 42 };
        let second = Taken {
            recipients: vec!["b2@x.org".into(), "b3@x.org".into()],
            message_id: String::new(),
            size: 3,
        };
        (vec![first, second], vec![250, 250, 250, 354, 250, 250, 250, 250, 354, 250, 221], true)
    }

    #[test]
    fn a_pipelined_session_is_answered_from_one_read() {
        assert_eq!(run(std::iter::once(SESSION.to_vec())), expected());
    }

    #[test]
    fn pieces_of_any_size_give_the_same_answers() {
        for size in 1..SESSION.len() {
            assert_eq!(run(SESSION.chunks(size).map(<[u8]>::to_vec)), expected(), "pieces of {size}");
        }
    }

    #[test]
    fn content_without_a_recipient_is_not_asked_for() {
        let (taken, codes, _) = run(std::iter::once(b"MAIL FROM:<>\r\nDATA\r\nRCPT TO:x\r\n".to_vec()));
        assert_eq!((taken.len(), codes), (0, vec![250, 503, 501]));
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (_, codes, over) = run(std::iter::once(vec![b'x'; LINE_MAX + 1]));
        assert_eq!((codes, over), (vec![500], true));
    }
}
