//! A relay and a connection to it.

use std::sync::Arc;
use std::time::Duration;

use lab::relay::{Relay, Script};
use secrecy::SecretString;
use shared::address::Address;
use shared::classify::{Cause, Failure, Meaning, classify};
use shared::reply::{Reply, Stage};
use shared::settings::{Credentials, Smtp, Tls};
use worker::compose::Letter;
use worker::smtp::{Connection, Connector};

/// The settings for a relay: in the clear, unless a test says otherwise.
pub(crate) fn smtp(relay: &Relay) -> Smtp {
    Smtp {
        name: "default".into(),
        host: "127.0.0.1".into(),
        port: relay.addr().port(),
        credentials: None,
        tls: Tls::Auto,
        ca_file: relay.ca_file(),
        helo_name: Some("client.example".into()),
        max_connections: 10,
        max_messages_per_connection: 100,
        connect_timeout: Duration::from_secs(10),
        command_timeout: Duration::from_secs(10),
        data_timeout: Duration::from_secs(10),
        probe_max: Duration::from_mins(1),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the setting wants it")]
pub(crate) fn login(user: &str, pass: &str) -> Option<Credentials> {
    Some(Credentials { user: user.into(), pass: SecretString::from(pass.to_owned()) })
}

pub(crate) async fn relay(script: Script) -> Relay {
    Relay::start(script).await.unwrap()
}

/// A relay and a connection to it.
pub(crate) async fn connected(script: Script) -> (Relay, Connection) {
    let relay = relay(script).await;
    let connection = open(smtp(&relay)).await.unwrap();
    (relay, connection)
}

pub(crate) fn connector(smtp: Smtp) -> Connector {
    Connector::try_new(Arc::new(smtp)).unwrap()
}

pub(crate) async fn open(smtp: Smtp) -> Result<Connection, Failure> {
    connector(smtp).open().await
}

/// A letter to a local part, which is an order to the relay.
pub(crate) fn letter(to: &str) -> Letter {
    let to = if to.contains('@') { to.to_owned() } else { format!("{to}@example.com") };
    let source = format!("Message-ID: <{to}>\r\nSubject: test\r\n\r\nHello.\r\n");
    Letter {
        from: Address::parse("sender@example.org").unwrap(),
        smtputf8: !to.is_ascii(),
        to: Address::parse(&to).unwrap(),
        source,
    }
}

/// A letter of at least so many bytes: more than the sockets' buffers take.
pub(crate) fn large_letter(to: &str, size: usize) -> Letter {
    let mut letter = letter(to);
    let line = format!("{}\r\n", "x".repeat(76));
    letter.source.push_str(&line.repeat(size / line.len() + 1));
    letter
}

/// Sends one letter.
pub(crate) async fn send(connection: &mut Connection, letter: &Letter) -> Result<Reply, Failure> {
    connection.envelope(letter).await?;
    connection.content(letter, None).await
}

/// Sends one letter, which fails.
pub(crate) async fn refused(connection: &mut Connection, to: &str) -> Failure {
    send(connection, &letter(to)).await.unwrap_err()
}

/// What a failure means where the sender is the configured one.
pub(crate) fn meaning(failure: &Failure) -> Meaning {
    classify(failure, false)
}

/// The stage, and the code where there is one.
pub(crate) fn place(failure: &Failure) -> (Stage, Option<u16>) {
    let code = match &failure.cause {
        Cause::Reply(reply) => Some(reply.code),
        _ => None,
    };
    (failure.stage, code)
}
