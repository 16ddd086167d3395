//! The plain part of a message that brings only HTML.
//!
//! One pass over the document, without a tree: a tokenizer that is conformant (HTML §13.2.5) finds tags and text, and
//! what it finds is laid out at once. Work and output are bounded by a multiple of the input, memory beside them by
//! constants; no input makes it panic.
//!
//! ```text
//!  html ──► tokenizer ──► read ──► document ──► flow ──► lines ──► text
//!            html5gum     whole    open         words    width,
//!                         tags     elements     spaces   prefixes
//!                                     └─► links (footnotes)
//! ```

mod document;
mod flow;
mod kinsoku;
mod lines;
mod links;
mod read;
mod tag;
#[cfg(test)]
mod tests;

use html5gum::Tokenizer;

/// The text of an HTML document, links as footnotes: lines of 76 columns at most where words allow it, each ended by
/// LF. Empty where it has none.
#[must_use]
pub fn from_html(html: &str) -> String {
    let mut document = document::Document::default();
    let Ok(()) = Tokenizer::new_with_emitter(html, read::Reader::new(&mut document)).finish();
    document.finish()
}
