//! The JSON texts that are stored: what they look like, and that they say which version they are.
//!
//! Unknown fields of a newer version are let through, and never lost: no script rewrites one of these texts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text)
}
