//! What a reply means (the contract's table), from the wire to the decision.

use std::time::Duration;

use lab::relay::Script;
use shared::classify::{Meaning, classify};

use crate::support::{connected, refused};

const THROTTLED: Option<Meaning> = None;

/// Sends to `text-x` on a relay whose reply to RCPT this is.
async fn at_rcpt(reply: &str) -> Meaning {
    let (_relay, mut connection) =
        connected(Script { texts: vec![("x".into(), reply.into())], ..Script::default() }).await;
    let failure = refused(&mut connection, "text-x-bob").await;
    classify(&failure, false)
}

/// Sends on a relay whose reply to MAIL this is.
async fn at_mail(reply: &str, sender_requested: bool) -> Meaning {
    let (_relay, mut connection) =
        connected(Script { sender_refusal: Some(reply.into()), ..Script::default() }).await;
    let failure = refused(&mut connection, "bob").await;
    classify(&failure, sender_requested)
}

fn check(reply: &str, found: Meaning, expected: Option<Meaning>) {
    match expected {
        THROTTLED => assert!(matches!(found, Meaning::Throttled { .. }), "{reply}: {found:?}"),
        Some(expected) => assert_eq!(found, expected, "{reply}"),
    }
}

#[tokio::test]
async fn refused_recipient_means_what_the_contract_says() {
    use Meaning::{Deferred, Rejected};
    for (reply, expected) in [
        ("450 4.2.0 Mailbox busy", Some(Deferred)),
        ("451 4.7.1 Greylisted, please try again later", Some(Deferred)),
        ("452 4.2.2 Mailbox full", Some(Deferred)),
        ("550 5.1.1 No such user", Some(Rejected)),
        ("553 5.1.3 Bad address", Some(Rejected)),
        ("552 5.2.2 Mailbox full", Some(Deferred)),
        ("550 邮箱已满", Some(Deferred)),
        ("550 Domain frequency limited [qq.com]", THROTTLED),
        ("550 5.4.5 Daily user sending limit exceeded", THROTTLED),
        ("550 5.7.1 Daily SMTP relay limit exceeded for customer", THROTTLED),
        ("451 MI:SFQ too many mails in 15 minutes", THROTTLED),
        ("554 DT:SPM", Some(Rejected)),
        ("451 DT:SPM", Some(Deferred)),
        ("452 DT:SPM", Some(Deferred)),
    ] {
        check(reply, at_rcpt(reply).await, expected);
    }
}

#[tokio::test]
async fn refused_sender_means_what_the_contract_says() {
    use Meaning::{Deferred, Rejected, RelayDown};
    // With the configured sender, and with one that the request named.
    for (reply, configured, requested) in [
        ("451 4.3.0 Local error", Some(Deferred), Some(Deferred)),
        ("553 5.1.8 Sender refused", Some(RelayDown), Some(Rejected)),
        ("553 Mail from must equal authorized user", Some(RelayDown), Some(Rejected)),
        ("501 Mail from address must be same as authorization user.", Some(RelayDown), Some(Rejected)),
        (
            "550 5.7.60 Client does not have permissions to send as this sender",
            Some(RelayDown),
            Some(Rejected),
        ),
        ("553 5.7.1 Sender address rejected: not owned by user", Some(RelayDown), Some(Rejected)),
        ("530 5.7.0 Authentication required", Some(RelayDown), Some(RelayDown)),
        ("550 5.7.0 Must authenticate", Some(RelayDown), Some(RelayDown)),
        ("450 4.7.1 Message rate exceeded, slow down", THROTTLED, THROTTLED),
        ("550 Sender frequency limited", THROTTLED, THROTTLED),
    ] {
        check(reply, at_mail(reply, false).await, configured);
        check(reply, at_mail(reply, true).await, requested);
    }
}

#[tokio::test]
async fn wait_that_the_relay_names_is_the_wait() {
    for (reply, secs) in
        [("451 4.7.1 Too many messages, wait 90 seconds", 90), ("550 发送频率过高,请5分钟后再试", 300)]
    {
        let wait = Duration::from_secs(secs);
        assert_eq!(at_rcpt(reply).await, Meaning::Throttled { wait }, "{reply}");
    }
}
