//! What a body says, by type and before any rule.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The body of `POST /v1/send-event-email`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    pub(crate) subject: Option<String>,
    pub(crate) recipients: Option<Vec<DraftRecipient>>,
    pub(crate) body: Option<String>,
    pub(crate) template_id: Option<String>,
    pub(crate) template_data: Option<Map<String, Value>>,
    pub(crate) locale: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) headers: Option<Headers>,
    pub(crate) send_at: Option<String>,
    pub(crate) priority: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) metadata: Option<Map<String, Value>>,
    pub(crate) on_ambiguous: Option<String>,
    pub(crate) dry_run: Option<bool>,
}

/// An address, or an object with one.
#[derive(Debug, PartialEq)]
pub(crate) enum DraftRecipient {
    Address(String),
    Object(RecipientObject),
    /// Not of the type; already among the faults.
    Wrong,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipientObject {
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: Option<Map<String, Value>>,
}

impl<'de> Deserialize<'de> for DraftRecipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = DraftRecipient;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or an object with one")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(DraftRecipient::Address(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let object = RecipientObject::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(DraftRecipient::Object(object))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Header fields in the order in which they are given.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Headers(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}
