//! The plain part of a message that brings only HTML.

/// The width of a line, in columns (RFC 3676 §4.2 asks for 78 at most).
const WIDTH: usize = 76;

/// How deep elements may be nested for a conversion: what a person or a program writes stays far below, and the
/// conversion goes down as deep.
const DEPTH: usize = 400;

/// How large the HTML may be for a conversion, in bytes.
const SIZE: usize = 2 * 1024 * 1024;

/// The text of an HTML document, links as footnotes. Empty where it has none, or is beyond reason.
pub(super) fn from_html(html: &str) -> String {
    if html.len() > SIZE || depth(html) > DEPTH {
        return String::new();
    }
    let convert = || {
        let config = html2text::config::plain().no_table_borders().link_footnotes(true);
        config.string_from_read(html.as_bytes(), WIDTH).unwrap_or_default()
    };
    // It panics on some tables that browsers show: a mail without a plain part is better than none.
    std::panic::catch_unwind(convert).unwrap_or_else(|_| {
        tracing::warn!("the HTML of a mail could not be made plain text: it goes out without");
        String::new()
    })
}

/// At least the depth of the document's elements: every opening tag counts that no closing one has answered.
fn depth(html: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let bytes = html.as_bytes();
    for at in memchr::memchr_iter(b'<', bytes) {
        match bytes.get(at + 1) {
            Some(b'/') => depth = depth.saturating_sub(1),
            Some(c) if c.is_ascii_alphabetic() && !is_void(&bytes[at + 1..]) => depth += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Elements that have no end (HTML §13.1.2), and those whose end is often left out.
const VOID: [&str; 19] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr",
    "p", "li", "td", "tr", "th", "option",
];

fn is_void(tag: &[u8]) -> bool {
    let len = tag.iter().position(|c| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
    let Ok(name) = std::str::from_utf8(&tag[..len]) else {
        return false;
    };
    VOID.iter().any(|void| name.eq_ignore_ascii_case(void))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_that_the_library_panics_on_gives_no_text() {
        let html = "<table><tr><td>a</td></tr><tr><td>a</td><td colspan=2 rowspan=2>a</td></tr></table>";
        // The day on which this gives text, the catch can go.
        assert_eq!(from_html(html), "");
        assert_eq!(from_html("<p>a</p>").trim(), "a");
    }
}
