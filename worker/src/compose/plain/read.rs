//! From the tokenizer's calls to tags and text.

use html5gum::{Emitter, State};

use super::document::Document;
use super::tag::{Attribute, Attributes, Name};

/// Collects what the tokenizer finds (HTML §13.2.5) and hands it on: text in whole characters, tags when they end.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    document: &'a mut Document,
    text: Vec<u8>,
    tag: Vec<u8>,
    ends: bool,
    last_start: Vec<u8>,
    attributes: Attributes,
    attribute_name: Vec<u8>,
    /// The attribute whose value is being read.
    attribute: Option<Attribute>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(document: &'a mut Document) -> Self {
        Self {
            document,
            text: Vec::new(),
            tag: Vec::new(),
            ends: false,
            last_start: Vec::new(),
            attributes: Attributes::default(),
            attribute_name: Vec::new(),
            attribute: None,
        }
    }

    fn end_text(&mut self) {
        if self.text.is_empty() {
            return;
        }
        match std::str::from_utf8(&self.text) {
            Ok(text) => self.document.text(text),
            // The tokenizer gives back the UTF-8 that it gets, though in pieces: this way is not taken.
            Err(_) => self.document.text(&String::from_utf8_lossy(&self.text)),
        }
        self.text.clear();
    }

    fn begin_tag(&mut self, ends: bool) {
        self.ends = ends;
        self.tag.clear();
        self.attributes.clear();
        self.attribute_name.clear();
        self.attribute = None;
    }

    /// The name is whole: its value comes, or the next name, or the tag's end.
    fn name_attribute(&mut self) {
        if !self.attribute_name.is_empty() {
            self.attribute =
                Attribute::of(&self.attribute_name).filter(|attribute| self.attributes.begin(*attribute));
            self.attribute_name.clear();
        }
    }
}

impl Emitter for Reader<'_> {
    type Token = std::convert::Infallible;

    fn set_last_start_tag(&mut self, name: Option<&[u8]>) {
        self.last_start.clear();
        self.last_start.extend_from_slice(name.unwrap_or_default());
    }

    fn should_emit_errors(&mut self) -> bool {
        false
    }

    fn pop_token(&mut self) -> Option<Self::Token> {
        None
    }

    fn emit_string(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn init_start_tag(&mut self) {
        self.begin_tag(false);
    }

    fn init_end_tag(&mut self) {
        self.begin_tag(true);
    }

    fn push_tag_name(&mut self, name: &[u8]) {
        self.tag.extend_from_slice(name);
    }

    fn init_attribute(&mut self) {
        self.name_attribute();
        self.attribute = None;
    }

    fn push_attribute_name(&mut self, name: &[u8]) {
        self.attribute_name.extend_from_slice(name);
    }

    fn push_attribute_value(&mut self, value: &[u8]) {
        self.name_attribute();
        if let Some(attribute) = self.attribute {
            self.attributes.push(attribute, value);
        }
    }

    fn emit_current_tag(&mut self) -> Option<State> {
        self.name_attribute();
        self.end_text();
        if self.ends {
            self.document.close(&self.tag);
            return None;
        }
        std::mem::swap(&mut self.last_start, &mut self.tag);
        let raw = raw(&self.last_start);
        self.document.open(&self.last_start, &self.attributes, raw.is_some());
        raw
    }

    fn emit_eof(&mut self) {
        self.end_text();
    }

    fn current_is_appropriate_end_tag_token(&mut self) -> bool {
        self.ends && Name::of(&self.tag) == Name::of(&self.last_start)
    }

    fn emit_error(&mut self, _: html5gum::Error) {}
    fn init_comment(&mut self) {}
    fn emit_current_comment(&mut self) {}
    fn emit_current_doctype(&mut self) {}
    fn set_self_closing(&mut self) {}
    fn set_force_quirks(&mut self) {}
    fn push_comment(&mut self, _: &[u8]) {}
    fn push_doctype_name(&mut self, _: &[u8]) {}
    fn init_doctype(&mut self) {}
    fn set_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn set_doctype_system_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_system_identifier(&mut self, _: &[u8]) {}
}

/// How the content of an element is read that holds no elements (HTML §13.2.6.4).
fn raw(name: &[u8]) -> Option<State> {
    match name {
        b"title" | b"textarea" => Some(State::RcData),
        b"script" => Some(State::ScriptData),
        b"style" | b"xmp" | b"iframe" | b"noembed" | b"noframes" | b"noscript" => Some(State::RawText),
        b"plaintext" => Some(State::PlainText),
        _ => None,
    }
}
