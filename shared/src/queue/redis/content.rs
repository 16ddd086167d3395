//! What the jobs of a batch share, fetched once and kept for a while: every job of a batch is sent from one copy.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::channel::Channel;
use super::keys::Keys;
use super::{stored, unreadable};
use crate::job::BatchId;
use crate::message::Content;
use crate::queue::Unavailable;
use crate::template::Bundle;

/// Stored bytes whose parsed form is kept, at most.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// How many values are asked for at once: the largest are some 27 MiB.
const AT_ONCE: usize = 16;

/// Of one batch.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) content: Arc<Content>,
    pub(super) bundle: Option<Arc<Bundle>>,
}

/// The newest contents and bundles.
#[derive(Default)]
pub(super) struct Contents {
    contents: Mutex<Kept<BatchId, Content>>,
    bundles: Mutex<Kept<String, Bundle>>,
}

/// A map that forgets the oldest when it grows too heavy.
struct Kept<K, V> {
    values: HashMap<K, (Arc<V>, usize)>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<K: Eq + Hash + Clone, V> Kept<K, V> {
    fn get(&self, key: &K) -> Option<Arc<V>> {
        self.values.get(key).map(|(value, _)| Arc::clone(value))
    }

    fn insert(&mut self, key: K, value: Arc<V>, bytes: usize) {
        if self.values.insert(key.clone(), (value, bytes)).is_none() {
            self.order.push_back(key);
            self.bytes += bytes;
        }
        while self.bytes > KEPT_BYTES && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|key| self.values.remove(&key));
            self.bytes -= oldest.map_or(0, |(_, bytes)| bytes);
        }
    }
}

impl Contents {
    /// What the batches share; a batch whose content, or whose template, is gone or cannot be read is left out.
    pub(super) async fn fetch(
        &self,
        channel: &Channel,
        keys: &Keys,
        wanted: &[(String, Option<String>)],
    ) -> Result<HashMap<BatchId, Shared>, Unavailable> {
        let batches: Vec<BatchId> =
            wanted.iter().map(|(id, _)| id.parse().map_err(unreadable)).collect::<Result<_, _>>()?;
        let contents =
            fetch(channel, &self.contents, &batches, |id| keys.content(*id), stored::read_content).await?;
        let hashes: Vec<String> = wanted.iter().filter_map(|(_, hash)| hash.clone()).collect();
        let bundles =
            fetch(channel, &self.bundles, &hashes, |hash| keys.template(hash), stored::read_bundle).await?;
        let shared = batches.into_iter().zip(wanted).filter_map(|(id, (_, hash))| {
            let bundle = match hash {
                Some(hash) => Some(Arc::clone(bundles.get(hash)?)),
                None => None,
            };
            let content = Arc::clone(contents.get(&id)?);
            Some((id, Shared { content, bundle }))
        });
        Ok(shared.collect())
    }
}

async fn fetch<K: Eq + Hash + Clone, V>(
    channel: &Channel,
    kept: &Mutex<Kept<K, V>>,
    wanted: &[K],
    key: impl Fn(&K) -> String,
    read: impl Fn(&[u8]) -> Result<V, serde_json::Error>,
) -> Result<HashMap<K, Arc<V>>, Unavailable> {
    let mut found = HashMap::new();
    let mut missing = Vec::new();
    {
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        for id in wanted {
            match kept.get(id) {
                Some(value) => drop(found.insert(id.clone(), value)),
                None if missing.contains(id) => {}
                None => missing.push(id.clone()),
            }
        }
    }
    for some in missing.chunks(AT_ONCE) {
        let texts = match get(channel, some, &key).await {
            // Large ones take their time: each for itself, and what has come is kept, so that a repetition has less to do.
            Err(_) if some.len() > 1 => {
                for one in some {
                    let text = get(channel, std::slice::from_ref(one), &key).await?;
                    take(kept, one, text.first().and_then(Option::as_deref), &read, &mut found);
                }
                continue;
            }
            texts => texts?,
        };
        for (id, text) in some.iter().zip(texts) {
            take(kept, id, text.as_deref(), &read, &mut found);
        }
    }
    Ok(found)
}

async fn get<K>(
    channel: &Channel,
    ids: &[K],
    key: &impl Fn(&K) -> String,
) -> Result<Vec<Option<Vec<u8>>>, Unavailable> {
    let mut get = redis::cmd("MGET");
    for id in ids {
        get.arg(key(id));
    }
    channel.command(&get).await
}

/// Reads and keeps a value, once.
fn take<K: Eq + Hash + Clone, V>(
    kept: &Mutex<Kept<K, V>>,
    id: &K,
    text: Option<&[u8]>,
    read: &impl Fn(&[u8]) -> Result<V, serde_json::Error>,
    found: &mut HashMap<K, Arc<V>>,
) {
    let Some(text) = text.filter(|_| !found.contains_key(id)) else { return };
    match read(text) {
        Ok(value) => {
            let value = Arc::new(value);
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(id.clone(), Arc::clone(&value), text.len());
            found.insert(id.clone(), value);
        }
        Err(e) => tracing::error!(error = %e, "stored content cannot be read"),
    }
}
