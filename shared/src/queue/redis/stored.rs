//! The JSON texts that are stored: what they look like, and that they say which version they are.
//!
//! Unknown fields of a newer version are let through, and never lost: no script rewrites one of these texts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::Content;
use crate::template::Bundle;

const VERSION: u32 = 1;

/// `:content:<batch>`.
#[derive(Serialize, Deserialize)]
struct StoredContent<C> {
    v: u32,
    content: C,
}

/// `:template:<hash>`.
#[derive(Serialize, Deserialize)]
struct StoredBundle<B> {
    v: u32,
    bundle: B,
}

/// `:labels:<batch>`: what the caller gave to have it back. There is none where nothing was given.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Labels {
    #[serde(default)]
    v: u32,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Map<String, Value>>,
}

/// `:idem:<hash>`, as the enqueue script writes it.
#[derive(Debug, Deserialize)]
pub(super) struct StoredAnswer {
    pub(super) fingerprint: String,
    pub(super) batch: crate::job::BatchId,
    pub(super) count: u32,
    pub(super) scheduled: bool,
}

pub(super) fn content(content: &Content) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&StoredContent { v: VERSION, content })
}

pub(super) fn read_content(text: &[u8]) -> Result<Content, serde_json::Error> {
    read::<StoredContent<Content>>(text).map(|stored| stored.content)
}

pub(super) fn bundle(bundle: &Bundle) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&StoredBundle { v: VERSION, bundle })
}

pub(super) fn read_bundle(text: &[u8]) -> Result<Bundle, serde_json::Error> {
    read::<StoredBundle<Bundle>>(text).map(|stored| stored.bundle)
}

/// Empty where there is nothing to say.
pub(super) fn labels(
    tags: &[String],
    metadata: Option<&Map<String, Value>>,
) -> Result<Vec<u8>, serde_json::Error> {
    if tags.is_empty() && metadata.is_none() {
        return Ok(Vec::new());
    }
    serde_json::to_vec(&Labels {
        v: VERSION,
        tags: tags.to_vec(),
        metadata: metadata.cloned(),
    })
}

pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}
