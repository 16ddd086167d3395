//! The second look at a body that does not fit the types: every wrong type and unknown field, and the rest of it.

use serde_json::{Map, Value};
use shared::address::Address;

use super::draft::{Draft, DraftRecipient, Headers, RecipientObject};
use crate::problem::{Faults, Rule};

/// A JSON pointer to a member (RFC 6901 §3).
pub(crate) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

struct Walk(Faults);

impl Walk {
    fn wrong(&mut self, pointer: &str, expected: &str) {
        self.0.add(pointer, Rule::WrongType, format!("{expected} is expected"));
    }

    fn unknown(&mut self, pointer: String) {
        self.0.add(pointer, Rule::UnknownField, "this field is not known");
    }

    fn text(&mut self, at: &str, value: Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => {
                self.wrong(at, "a string");
                None
            }
        }
    }

    fn object(&mut self, at: &str, value: Value) -> Option<Map<String, Value>> {
        match value {
            Value::Null => None,
            Value::Object(object) => Some(object),
            _ => {
                self.wrong(at, "an object");
                None
            }
        }
    }

    fn list(&mut self, at: &str, value: Value) -> Option<Vec<Value>> {
        match value {
            Value::Null => None,
            Value::Array(list) => Some(list),
            _ => {
                self.wrong(at, "a list");
                None
            }
        }
    }

    fn recipient(&mut self, at: &str, value: Value) -> DraftRecipient {
        match value {
            Value::String(text) => DraftRecipient::Address(text),
            Value::Object(object) => {
                let mut recipient = RecipientObject::default();
                let mut is_told = false;
                for (name, value) in object {
                    let at = format!("{at}{}", pointer(&name));
                    match name.as_str() {
                        "email" => {
                            is_told = !(value.is_null() || value.is_string());
                            recipient.email = self.text(&at, value);
                        }
                        "name" => recipient.name = self.text(&at, value),
                        "data" => recipient.data = self.object(&at, value),
                        _ => self.unknown(at),
                    }
                }
                // That the address is wrong is told: that it is missing need not be told too.
                if is_told { DraftRecipient::Wrong } else { DraftRecipient::Object(recipient) }
            }
            _ => {
                self.wrong(at, "an address or an object with one");
                DraftRecipient::Wrong
            }
        }
    }

    fn headers(&mut self, at: &str, value: Value) -> Option<Headers> {
        let object = self.object(at, value)?;
        let mut headers = Headers::default();
        for (name, value) in object {
            let at = format!("{at}{}", pointer(&name));
            if let Value::String(value) = value {
                headers.0.push((name, value));
            } else {
                self.wrong(&at, "a string");
            }
        }
        Some(headers)
    }

    fn tags(&mut self, at: &str, value: Value) -> Option<Vec<String>> {
        let list = self.list(at, value)?;
        let mut tags = Vec::new();
        for (n, tag) in list.into_iter().enumerate() {
            if let Value::String(tag) = tag {
                tags.push(tag);
            } else {
                self.wrong(&format!("{at}/{n}"), "a string");
                // Keeps the place, so that the others' pointers are right.
                tags.push(String::new());
            }
        }
        Some(tags)
    }
}

/// What a body says where it is of the types, and every place where it is not. A field of the wrong type is in the
/// draft as far as the rules must know that it is there. The body is an object.
pub(super) fn walk(value: Value) -> (Draft, Faults) {
    let mut walk = Walk(Faults::default());
    let mut draft = Draft::default();
    let object = if let Value::Object(object) = value { object } else { Map::new() };
    for (name, value) in object {
        let at = pointer(&name);
        match name.as_str() {
            "subject" => draft.subject = walk.text(&at, value),
            "recipients" => {
                let list = walk.list(&at, value);
                draft.recipients = list.map(|list| {
                    let each = list.into_iter().enumerate();
                    each.map(|(n, value)| walk.recipient(&format!("{at}/{n}"), value)).collect()
                });
            }
            "body" => draft.body = walk.text(&at, value),
            "template_id" => draft.template_id = walk.text(&at, value),
            "template_data" => draft.template_data = walk.object(&at, value),
            "locale" => draft.locale = walk.text(&at, value),
            "text" => draft.text = walk.text(&at, value),
            "from" => draft.from = walk.text(&at, value),
            "reply_to" => draft.reply_to = walk.text(&at, value),
            "headers" => draft.headers = walk.headers(&at, value),
            "send_at" => draft.send_at = walk.text(&at, value),
            "priority" => draft.priority = walk.text(&at, value),
            "tags" => draft.tags = walk.tags(&at, value),
            "metadata" => draft.metadata = walk.object(&at, value),
            "on_ambiguous" => draft.on_ambiguous = walk.text(&at, value),
            "dry_run" => match value {
                Value::Null => {}
                Value::Bool(flag) => draft.dry_run = Some(flag),
                _ => walk.wrong(&at, "true or false"),
            },
            _ => walk.unknown(at),
        }
    }
    (draft, walk.0)
}

/// The recipients of a body that was accepted once, whatever else is wrong with it now.
pub(crate) fn recipients(body: &[u8]) -> Option<Vec<Address>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let list = value.get("recipients")?.as_array()?;
    let email = |one: &Value| {
        one.as_str().or_else(|| one.get("email")?.as_str()).map(str::trim).map(ToOwned::to_owned)
    };
    list.iter().map(|one| Address::parse(&email(one)?).ok()).collect()
}
