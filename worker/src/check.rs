//! What `--check` finds out about the queue and the relay.

use std::sync::Arc;

use shared::clock::SystemClock;
use shared::program::Findings;
use shared::queue::{self, Durability, Queue};
use shared::settings::{QueueSettings, Settings, TransportKind};

use crate::smtp::Connector;

/// Opens the queue and asks it what a 202 is worth.
pub async fn queue(settings: &QueueSettings, findings: &mut Findings) {
    let found = async {
        let queue = queue::open(settings, Arc::new(SystemClock), true).await.map_err(|e| e.to_string())?;
        let durability = queue.durability().await.map_err(|e| e.to_string())?;
        Ok(format!("{}; {}", durability.backend, durability.details.join("; ")))
    };
    findings.note("queue", found.await);
}

/// Logs what a 202 is worth; warns where it is lost when the backend crashes.
pub async fn tell_durability(queue: &dyn Queue) {
    match queue.durability().await {
        Ok(Durability { survives_crash: true, details, .. }) => {
            tracing::info!(details = details.join("; "), "a 202 survives a crash of the queue");
        }
        Ok(Durability { details, .. }) => {
            tracing::warn!(details = details.join("; "), "a 202 does not survive every crash of the queue");
        }
        Err(error) => tracing::warn!(%error, "what a 202 is worth is not known"),
    }
}

/// Connects to the relay and logs in, without a message.
pub async fn relay(settings: &Settings, findings: &mut Findings) {
    let smtp = &settings.smtp;
    let place = format!("{}:{}", smtp.host, smtp.port);
    let found = match settings.mail.transport {
        TransportKind::Outbox => Ok("the outbox: messages are kept to look at, nothing is sent".to_owned()),
        TransportKind::Smtp => match Connector::try_new(Arc::new(smtp.clone())) {
            Err(error) => Err(error.to_string()),
            Ok(connector) => match connector.probe().await {
                Ok(()) => {
                    let login = if smtp.credentials.is_some() { "logged in" } else { "connected, no login" };
                    Ok(format!("{place}, {login}"))
                }
                Err(failure) => Err(format!("{place}: {}", failure.last_reply())),
            },
        },
    };
    findings.note("relay", found);
}
