//! From a delivery to a message (RFC 5322, MIME) and its envelope.
//!
//! The same delivery gives the same bytes in every attempt: nothing in them comes from a clock or from chance. Every
//! header's value is encoded or refused, so that none can add another.

mod message;
pub mod plain;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use shared::address::Address;
use shared::job::Reason;
use shared::message::{Body, Content, PlainPart};
use shared::queue::Delivery;
use shared::template::{BundleHash, Compiled, Rendered};

/// A message and its envelope, ready for a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The envelope's sender.
    pub from: Address,
    /// The envelope's recipient.
    pub to: Address,
    /// The message: CRLF line ends, no line over 998 octets, ASCII unless `smtputf8`. Not dot-stuffed; ends with CRLF.
    pub source: String,
    /// Whether the relay must offer SMTPUTF8 (RFC 6531): an address in the envelope or the headers is not ASCII.
    pub smtputf8: bool,
}

/// Why a message cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotBuilt {
    /// The reason that the job fails with.
    pub reason: Reason,
    /// For a person; no address.
    pub message: String,
}

impl NotBuilt {
    /// Building it panicked.
    pub(crate) fn panicked() -> Self {
        not_built("building the message panicked".to_owned())
    }
}

/// The parts of a message, before they are encoded.
#[derive(Debug)]
struct Parts<'a> {
    subject: std::borrow::Cow<'a, str>,
    html: std::borrow::Cow<'a, str>,
    text: Option<Arc<str>>,
}

/// How many compiled templates and plain parts are kept for the next message of the same batch.
const KEPT: usize = 32;

/// Builds messages; keeps what the messages of a batch share.
#[derive(Debug, Default)]
pub struct Composer {
    templates: Mutex<VecDeque<(BundleHash, Arc<Compiled>)>>,
    plain: Mutex<VecDeque<(Arc<Content>, Arc<str>)>>,
}

impl Composer {
    /// Builds the message of a delivery. The same delivery gives the same bytes in every attempt.
    ///
    /// # Errors
    /// [`NotBuilt`] when it cannot be rendered.
    pub fn compose(&self, delivery: &Delivery) -> Result<Letter, NotBuilt> {
        let content = &*delivery.content;
        let parts = match &content.body {
            Body::Html(html) => Parts {
                subject: content.subject.as_deref().unwrap_or_default().into(),
                html: html.into(),
                text: match &content.text {
                    PlainPart::Made => Some(self.plain(&delivery.content, html)),
                    PlainPart::LeftOut => None,
                    PlainPart::Given(text) => Some(text.as_str().into()),
                },
            },
            Body::Template { bundle, data } => {
                let compiled = self.compiled(bundle, delivery)?;
                let subject = content.subject.as_deref();
                let rendered = compiled.render(subject, data, delivery.recipient.data.as_ref());
                let Rendered { subject, html, text } =
                    rendered.map_err(|error| not_built(error.to_string()))?;
                let text = match &content.text {
                    PlainPart::Made => Some(text.map_or_else(|| plain::from_html(&html).into(), Into::into)),
                    PlainPart::LeftOut => None,
                    PlainPart::Given(text) => Some(text.as_str().into()),
                };
                Parts { subject: subject.into(), html: html.into(), text }
            }
        };
        message::build(delivery, &parts)
    }

    fn compiled(&self, hash: &BundleHash, delivery: &Delivery) -> Result<Arc<Compiled>, NotBuilt> {
        let mut kept = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = kept.iter().find(|(known, _)| known == hash) {
            return Ok(Arc::clone(compiled));
        }
        let bundle =
            delivery.bundle.clone().ok_or_else(|| not_built("the template's sources are gone".into()))?;
        let compiled = Arc::new(Compiled::try_new(bundle).map_err(|error| not_built(error.to_string()))?);
        keep(&mut kept, hash.clone(), Arc::clone(&compiled));
        Ok(compiled)
    }

    /// The plain part of an HTML body, made once for all recipients of a batch.
    fn plain(&self, content: &Arc<Content>, html: &str) -> Arc<str> {
        let known = |kept: &VecDeque<(Arc<Content>, Arc<str>)>| {
            kept.iter().find(|(of, _)| Arc::ptr_eq(of, content)).map(|(_, text)| Arc::clone(text))
        };
        if let Some(text) = known(&self.plain.lock().unwrap_or_else(PoisonError::into_inner)) {
            return text;
        }
        let text: Arc<str> = plain::from_html(html).into();
        // Only a batch has a use for it again.
        if Arc::strong_count(content) > 2 {
            keep(
                &mut self.plain.lock().unwrap_or_else(PoisonError::into_inner),
                Arc::clone(content),
                Arc::clone(&text),
            );
        }
        text
    }
}

fn keep<K, V>(kept: &mut VecDeque<(K, V)>, key: K, value: V) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back((key, value));
}

fn not_built(message: String) -> NotBuilt {
    NotBuilt { reason: Reason::Render, message }
}

#[cfg(test)]
mod tests;
