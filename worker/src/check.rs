//! What `--check` finds out about the queue and the relay.

use std::sync::Arc;

use shared::program::Findings;
use shared::queue::Queue;
use shared::settings::{Settings, TransportKind};

use crate::smtp::Connector;

/// Asks the queue what a 202 is worth.
pub async fn queue(queue: &dyn Queue, findings: &mut Findings) {
    let found = match queue.durability().await {
        Ok(durability) => Ok(format!("{}; {}", durability.backend, durability.details.join("; "))),
        Err(error) => Err(error.to_string()),
    };
    findings.note("queue", found);
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
