//! What a batch says: everything that its recipients share, as it was accepted.
//!
//! It is stored once per batch, as JSON that a person can read; unknown fields of a newer version are let through.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::address::Mailbox;
use crate::template::BundleHash;

/// The content of a batch. Checked at acceptance; a worker only renders and sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The sender.
    pub from: Mailbox,
    /// Whether the request named the sender (else it is the configured one). Decides what a refusal of it means.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_requested: bool,
    /// Where answers go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Mailbox>,
    /// The subject: literal with an HTML body, a template's source with a template. None: the template has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The HTML part.
    pub body: Body,
    /// The plain part.
    #[serde(default)]
    pub text: PlainPart,
    /// Further header fields, in the request's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

/// Where the HTML part comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// As it is.
    Html(String),
    /// Rendered from a template's sources as they were at acceptance.
    Template {
        /// Names the sources, which are stored once however many batches use them.
        bundle: BundleHash,
        /// The data that all recipients share.
        data: Map<String, Value>,
    },
}

/// Where the plain part comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlainPart {
    /// The template's `.txt` where there is one, else made from the HTML.
    #[default]
    Made,
    /// There is none.
    LeftOut,
    /// As the request gave it.
    Given(String),
}
