//! What a message costs on the wire.

use lab::relay::{Form, Relay, Script};

use crate::support::{connected, large_letter, letter, refused, send};

/// Round trips since the count was last taken.
fn since(relay: &Relay, before: &mut u64) -> u64 {
    let now = relay.counts().round_trips;
    let spent = now - *before;
    *before = now;
    spent
}

/// A round trip is counted when the relay waits again: it does so for certain once it has read the QUIT.
async fn finish(relay: &Relay, connection: worker::smtp::Connection) {
    connection.quit().await;
    assert!(relay.wait_until(|counts| counts.open == 0).await);
}

#[tokio::test]
async fn message_takes_four_round_trips_without_pipelining() {
    let (relay, mut connection) = connected(Script { pipelining: false, ..Script::default() }).await;
    for n in 0..5 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
        assert!(!connection.looks_ahead());
    }
    finish(&relay, connection).await;
    let counts = relay.counts();
    // The greeting, EHLO; the answer to QUIT is waited for by nobody.
    assert_eq!(counts.round_trips, 2 + 5 * 4);
    assert_eq!((counts.largest_group, counts.connections), (1, 1));
}

#[tokio::test]
async fn message_takes_two_round_trips_with_pipelining() {
    let (relay, mut connection) = connected(Script::default()).await;
    for n in 0..5 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
    finish(&relay, connection).await;
    let counts = relay.counts();
    assert_eq!(counts.round_trips, 2 + 5 * 2);
    assert_eq!(counts.largest_group, 3);
}

#[tokio::test]
async fn message_behind_a_final_dot_takes_one_round_trip() {
    let (relay, mut connection) = connected(Script::default()).await;
    let letters: Vec<_> = (0..10).map(|n| letter(&format!("u{n}"))).collect();
    let mut before = 2;
    for (n, letter) in letters.iter().enumerate() {
        connection.envelope(letter).await.unwrap();
        let next = letters.get(n + 1).filter(|_| connection.looks_ahead());
        assert_eq!(next.is_some(), (2..9).contains(&n), "message {n}");
        connection.content(letter, next).await.unwrap();
        assert_eq!(connection.is_begun(), next.is_some());
    }
    finish(&relay, connection).await;
    assert_eq!(since(&relay, &mut before), 3 * 2 + 7);
    assert_eq!(relay.journal().len(), 10);
    let (taken, sent): (Vec<_>, Vec<_>) = relay
        .journal()
        .into_iter()
        .zip(&letters)
        .map(|(message, letter)| (message.source, letter.source.clone()))
        .unzip();
    assert_eq!(taken, sent);
}

#[tokio::test]
async fn next_envelope_goes_out_only_where_the_connection_looks_ahead() {
    for pipelining in [true, false] {
        let (relay, mut connection) = connected(Script { pipelining, ..Script::default() }).await;
        let (first, second) = (letter("first"), letter("second"));
        connection.envelope(&first).await.unwrap();
        // The first message of a connection: it has proven nothing.
        connection.content(&first, Some(&second)).await.unwrap();
        assert!(!connection.is_begun());
        send(&mut connection, &second).await.unwrap();
        assert_eq!(relay.journal().len(), 2);
    }
}

#[tokio::test]
async fn connection_stops_looking_ahead_after_a_refusal() {
    let (_relay, mut connection) = connected(Script::default()).await;
    for n in 0..2 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
    assert!(connection.looks_ahead());
    refused(&mut connection, "rcpt-550-x").await;
    assert!(connection.is_usable() && !connection.looks_ahead());
}

#[tokio::test]
async fn connection_carries_no_more_than_it_may() {
    let relay = crate::support::relay(Script::default()).await;
    let mut smtp = crate::support::smtp(&relay);
    smtp.max_messages_per_connection = 4;
    let mut connection = crate::support::open(smtp).await.unwrap();
    for n in 0..4 {
        assert!(!connection.is_spent(), "message {n}");
        let letter = letter(&format!("u{n}"));
        connection.envelope(&letter).await.unwrap();
        assert_eq!(connection.looks_ahead(), n == 2, "message {n}");
        connection.content(&letter, None).await.unwrap();
    }
    assert!(connection.is_spent());
}

#[tokio::test]
async fn large_message_arrives_as_it_was_with_and_without_a_next_one() {
    let (relay, mut connection) = connected(Script::default()).await;
    let mut large = large_letter("large", 3_000_000);
    large.source.push_str(".\r\n..two\r\n.\r\n");
    for n in 0..2 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
    let next = letter("next");
    connection.envelope(&large).await.unwrap();
    connection.content(&large, Some(&next)).await.unwrap();
    assert!(connection.is_begun());
    send(&mut connection, &next).await.unwrap();
    let journal = relay.journal();
    assert!(journal[2].source == large.source, "the content changed on its way");
    assert_eq!(journal[3].to, ["next@example.com"]);
}

#[tokio::test]
async fn answers_in_one_byte_segments_are_read() {
    let (relay, mut connection) =
        connected(Script { form: Form { one_byte: true, ..Form::default() }, ..Script::default() }).await;
    for n in 0..3 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
    assert_eq!(relay.journal().len(), 3);
}
