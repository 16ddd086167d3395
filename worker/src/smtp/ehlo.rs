//! What a server says that it can do (RFC 5321 §4.1.1.1), read without regard to case.

/// The capabilities that matter to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword that is there or not")]
pub(super) struct Capabilities {
    pub(super) pipelining: bool,
    pub(super) starttls: bool,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    pub(super) auth_plain: bool,
    pub(super) auth_login: bool,
    /// SIZE is offered (RFC 1870).
    pub(super) has_size: bool,
    /// The largest message, in bytes, where it said one.
    pub(super) max_size: Option<usize>,
}

impl Capabilities {
    /// From the text of the reply to EHLO: the server's name, then a keyword a line.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().skip(1) {
            // Old servers write AUTH=LOGIN.
            let line = line.to_ascii_uppercase().replacen("AUTH=", "AUTH ", 1);
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("PIPELINING") => found.pipelining = true,
                Some("STARTTLS") => found.starttls = true,
                Some("8BITMIME") => found.eight_bit = true,
                Some("SMTPUTF8") => found.smtputf8 = true,
                Some("SIZE") => {
                    found.has_size = true;
                    // 0 says that there is no fixed limit.
                    found.max_size = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                }
                Some("AUTH") => {
                    for mechanism in words {
                        found.auth_plain |= mechanism == "PLAIN";
                        found.auth_login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_form() {
        let found = Capabilities::parse(
            "mail.example.com\npipelining\nSize 73400320\nauth=LOGIN\nAUTH PLAIN XOAUTH2\nsmtputf8",
        );
        let expected = Capabilities {
            pipelining: true,
            smtputf8: true,
            auth_plain: true,
            auth_login: true,
            has_size: true,
            max_size: Some(73_400_320),
            ..Capabilities::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn first_line_is_a_name_and_no_capability() {
        assert_eq!(Capabilities::parse("PIPELINING"), Capabilities::default());
        assert_eq!(Capabilities::parse("x\nSIZE 0").max_size, None);
    }
}
