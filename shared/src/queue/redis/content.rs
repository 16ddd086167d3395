//! What the jobs of a batch share, fetched once and kept for a while: every job of a batch is sent from one copy.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::channel::Channel;
use super::keys::Keys;
use super::stored;
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

/// What of a batch's is asked for.
pub(super) struct Wanted {
    pub(super) batch: BatchId,
    /// The hash of its template's sources.
    pub(super) template: Option<String>,
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
    /// What the batches share, where it did not come `along` as it is stored; a batch whose content, or whose template, is
    /// gone or cannot be read is left out.
    pub(super) async fn fetch(
        &self,
        channel: &Channel,
        keys: &Keys,
        wanted: &[Wanted],
        along: &HashMap<BatchId, Vec<u8>>,
    ) -> Result<HashMap<BatchId, Shared>, Unavailable> {
        let mut contents = HashMap::with_capacity(wanted.len());
        for (id, text) in along {
            take(*id, Some(text), &stored::read_content, &mut contents);
        }
        let key = |id: &BatchId| keys.content(*id);
        let missing: Vec<BatchId> =
            wanted.iter().map(|w| w.batch).filter(|id| !along.contains_key(id)).collect();
        fetch(channel, &self.contents, &missing, key, stored::read_content, &mut contents).await?;
        let hashes: Vec<String> = wanted.iter().filter_map(|w| w.template.clone()).collect();
        let key = |hash: &String| keys.template(hash);
        let mut bundles = HashMap::new();
        fetch(channel, &self.bundles, &hashes, key, stored::read_bundle, &mut bundles).await?;
        let shared = wanted.iter().filter_map(|w| {
            let bundle = match &w.template {
                Some(hash) => Some(Arc::clone(bundles.get(hash)?)),
                None => None,
            };
            let content = Arc::clone(contents.get(&w.batch)?);
            Some((w.batch, Shared { content, bundle }))
        });
        Ok(shared.collect())
    }
}

/// Puts what is wanted into `found`: from what is `kept`, the rest from Redis, which is kept then.
async fn fetch<K: Eq + Hash + Clone, V>(
    channel: &Channel,
    kept: &Mutex<Kept<K, V>>,
    wanted: &[K],
    key: impl Fn(&K) -> String,
    read: impl Fn(&[u8]) -> Result<V, serde_json::Error>,
    found: &mut HashMap<K, Arc<V>>,
) -> Result<(), Unavailable> {
    let mut missing = Vec::new();
    for id in wanted {
        match lock(kept).get(id) {
            Some(value) => drop(found.insert(id.clone(), value)),
            None if missing.contains(id) => {}
            None => missing.push(id.clone()),
        }
    }
    let mut take = |id: &K, text: Option<&[u8]>| {
        let value = take(id.clone(), text, &read, found);
        if let (Some(value), Some(text)) = (value, text) {
            lock(kept).insert(id.clone(), value, text.len());
        }
    };
    for some in missing.chunks(AT_ONCE) {
        let texts = match get(channel, some, &key).await {
            // Large ones take their time: each for itself, and what has come is kept, so that a repetition has less to do.
            Err(_) if some.len() > 1 => {
                for one in some {
                    let text = get(channel, std::slice::from_ref(one), &key).await?;
                    take(one, text.first().and_then(Option::as_deref));
                }
                continue;
            }
            texts => texts?,
        };
        for (id, text) in some.iter().zip(texts) {
            take(id, text.as_deref());
        }
    }
    Ok(())
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

/// Reads a value, once.
fn take<K: Eq + Hash + Clone, V>(
    id: K,
    text: Option<&[u8]>,
    read: &impl Fn(&[u8]) -> Result<V, serde_json::Error>,
    found: &mut HashMap<K, Arc<V>>,
) -> Option<Arc<V>> {
    let text = text.filter(|_| !found.contains_key(&id))?;
    match read(text) {
        Ok(value) => {
            let value = Arc::new(value);
            found.insert(id, Arc::clone(&value));
            Some(value)
        }
        Err(e) => {
            tracing::error!(error = %e, "stored content cannot be read");
            None
        }
    }
}

fn lock<T>(kept: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
