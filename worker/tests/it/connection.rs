//! One connection: what is refused, what is cut, and whether it can be used afterwards.

use std::time::Duration;

use futures::FutureExt;
use lab::relay::{Afterwards, Login, Relay, Script};
use shared::classify::{Cause, Meaning, classify};
use shared::reply::Stage;
use shared::settings::Tls;

use crate::support::{
    connected, connector, large_letter, letter, login, meaning, open, place, refused, relay, send, smtp,
};

/// With and without PIPELINING: what a refusal does must not depend on it.
fn both() -> [Script; 2] {
    [true, false].map(|pipelining| Script { pipelining, ..Script::default() })
}

#[tokio::test]
async fn connection_is_used_again_after_every_kind_of_refusal() {
    for script in both() {
        let (relay, mut connection) = connected(script).await;
        for (order, stage, code) in [
            ("rcpt-550-x", Stage::Rcpt, 550),
            ("rcpt-451-1-x", Stage::Rcpt, 451),
            ("data-451-1-x", Stage::Data, 451),
            ("dot-554-x", Stage::Dot, 554),
            ("dot-451-1-x", Stage::Dot, 451),
        ] {
            let failure = refused(&mut connection, order).await;
            assert_eq!(place(&failure), (stage, Some(code)), "{order}");
            assert!(!failure.stale && connection.is_usable(), "{order}");
        }
        // What was refused once is taken the second time.
        send(&mut connection, &letter("rcpt-451-1-x")).await.unwrap();
        assert_eq!(relay.counts().connections, 1);
        assert_eq!(relay.journal().len(), 1);
        assert_eq!(relay.counts().of("NOOP"), 0);
    }
}

#[tokio::test]
async fn refused_sender_leaves_the_connection_usable() {
    for script in both() {
        let (relay, mut connection) =
            connected(Script { sender_refusal: Some("553 5.1.8 Sender refused".into()), ..script }).await;
        let failure = refused(&mut connection, "bob").await;
        assert_eq!(place(&failure), (Stage::Mail, Some(553)));
        assert!(connection.is_usable());
        relay.change(|script| script.sender_refusal = None);
        send(&mut connection, &letter("bob")).await.unwrap();
        assert_eq!(relay.counts().connections, 1);
    }
}

#[tokio::test]
async fn lone_dot_ends_a_transaction_that_got_354_for_no_recipient() {
    let (relay, mut connection) = connected(Script { data_regardless: true, ..Script::default() }).await;
    let failure = refused(&mut connection, "rcpt-550-x").await;
    assert_eq!(place(&failure), (Stage::Rcpt, Some(550)));
    assert!(connection.is_usable());
    send(&mut connection, &letter("bob")).await.unwrap();
    let journal = relay.journal();
    assert_eq!((journal.len(), journal[0].to.as_slice()), (1, &["bob@example.com".to_owned()][..]));
}

#[tokio::test]
async fn connection_lost_at_the_lone_dot_leaves_no_doubt_about_the_message() {
    let (_relay, mut connection) =
        connected(Script { data_regardless: true, lone_dot_cut: true, ..Script::default() }).await;
    let failure = refused(&mut connection, "rcpt-550-x").await;
    assert_eq!(place(&failure), (Stage::Rcpt, Some(550)), "the refusal is what happened");
    assert_eq!(meaning(&failure), Meaning::Rejected);
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn answer_to_data_that_is_not_354_sends_no_content() {
    for reply in ["250 2.0.0 Ok", "235 2.7.0 Welcome", "334 more"] {
        for script in both() {
            let (relay, mut connection) =
                connected(Script { data_reply: Some(reply.into()), ..script }).await;
            let failure = connection.envelope(&letter("bob")).await.unwrap_err();
            assert_eq!((failure.stage, &failure.cause), (Stage::Data, &Cause::Garbled), "{reply}");
            assert_eq!(meaning(&failure), Meaning::Deferred);
            assert!(!connection.is_usable(), "{reply}");
            assert!(relay.journal().is_empty());
        }
    }
}

#[tokio::test]
async fn answers_that_have_slipped_end_the_connection() {
    let (relay, mut connection) = connected(Script { answers_mail_twice: true, ..Script::default() }).await;
    let failure = connection.envelope(&letter("bob")).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Garbled);
    assert!(!connection.is_usable());
    assert!(relay.journal().is_empty());
}

#[tokio::test]
async fn connection_cut_before_the_content_can_be_tried_again() {
    for script in both() {
        for (order, stage) in [("cut-rcpt", Stage::Rcpt), ("cut-data", Stage::Data)] {
            let (_relay, mut connection) = connected(script.clone()).await;
            let failure = refused(&mut connection, order).await;
            assert_eq!((failure.stage, &failure.cause), (stage, &Cause::Closed), "{order}");
            assert_eq!(meaning(&failure), Meaning::Deferred);
            assert!(!connection.is_usable());
        }
    }
}

#[tokio::test]
async fn content_does_not_go_out_to_a_relay_that_has_gone_since_its_354() {
    let (relay, mut connection) = connected(Script::default()).await;
    let letter = letter("cut-go");
    connection.envelope(&letter).await.unwrap();
    assert!(relay.wait_until(|counts| counts.open == 0).await);
    let failure = connection.content(&letter, None).await.unwrap_err();
    assert_eq!((failure.stage, &failure.cause), (Stage::Data, &Cause::Closed));
    assert_eq!(meaning(&failure), Meaning::Deferred, "there is no doubt about it");
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn connection_cut_while_the_content_goes_out_can_be_tried_again() {
    let (relay, mut connection) = connected(Script::default()).await;
    let letter = large_letter("cut-content", 30_000_000);
    let failure = send(&mut connection, &letter).await.unwrap_err();
    // The final dot never left: the relay cannot have the message.
    assert_eq!((failure.stage, &failure.cause), (Stage::Data, &Cause::Closed));
    assert_eq!(meaning(&failure), Meaning::Deferred);
    assert!(!connection.is_usable());
    assert!(relay.journal().is_empty());
}

#[tokio::test]
async fn connection_cut_after_the_dot_is_ambiguous_whether_it_was_taken_or_not() {
    for (order, taken) in [("cut-dot", 0), ("cut-taken", 1)] {
        let (relay, mut connection) = connected(Script::default()).await;
        let failure = refused(&mut connection, order).await;
        assert_eq!((failure.stage, &failure.cause), (Stage::Dot, &Cause::Closed), "{order}");
        assert_eq!(meaning(&failure), Meaning::Ambiguous, "{order}");
        assert!(!connection.is_usable());
        assert_eq!(relay.journal().len(), taken, "{order}");
    }
}

#[tokio::test]
async fn answer_in_the_middle_of_the_content_is_preferred_to_the_break() {
    for (order, code) in [("early-554", 554), ("early-421", 421)] {
        let (relay, mut connection) = connected(Script::default()).await;
        let letter = large_letter(order, 30_000_000);
        let failure = send(&mut connection, &letter).await.unwrap_err();
        assert_eq!(place(&failure).1, Some(code), "{order}: {failure:?}");
        assert!(!connection.is_usable());
        assert!(relay.journal().is_empty());
    }
}

/// A connection that does not wait long.
async fn impatient(command: Duration, data: Duration, script: Script) -> (Relay, worker::smtp::Connection) {
    let relay = relay(script).await;
    let mut smtp = smtp(&relay);
    (smtp.command_timeout, smtp.data_timeout) = (command, data);
    let connection = open(smtp).await.unwrap();
    (relay, connection)
}

const SOON: Duration = Duration::from_millis(300);
const LATE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn silence_after_the_dot_is_ambiguous_once_data_timeout_is_over() {
    let (_relay, mut connection) = impatient(LATE, SOON, Script::default()).await;
    let failure = refused(&mut connection, "mute").await;
    assert_eq!((failure.stage, &failure.cause), (Stage::Dot, &Cause::TimedOut));
    assert_eq!(meaning(&failure), Meaning::Ambiguous);
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn slow_answer_to_the_dot_is_waited_for() {
    // The wait after the dot is data_timeout's, however short the one for commands is.
    let (_relay, mut connection) = impatient(SOON, LATE, Script::default()).await;
    send(&mut connection, &letter("slow-600")).await.unwrap();
    send(&mut connection, &letter("bob")).await.unwrap();
}

#[tokio::test]
async fn relay_that_stops_reading_is_given_up_after_command_timeout() {
    for tls in [lab::relay::Tls::None, lab::relay::Tls::Implicit] {
        let relay = relay(Script { tls, ..Script::default() }).await;
        let mut smtp = smtp(&relay);
        (smtp.command_timeout, smtp.data_timeout) = (Duration::from_secs(1), LATE);
        if tls == lab::relay::Tls::Implicit {
            smtp.tls = Tls::Implicit;
        }
        let mut connection = open(smtp).await.unwrap();
        let letter = large_letter("stall", 30_000_000);
        let sent = tokio::time::timeout(Duration::from_secs(20), send(&mut connection, &letter)).await;
        let failure = sent.expect("it waits on and on").unwrap_err();
        assert_eq!((failure.stage, &failure.cause), (Stage::Data, &Cause::TimedOut), "{tls:?}");
        assert_eq!(meaning(&failure), Meaning::Deferred);
        assert!(!connection.is_usable());
    }
}

#[tokio::test]
async fn connection_that_the_relay_closed_while_idle_is_noticed_without_a_round_trip() {
    for (afterwards, code) in [(Afterwards::Close, None), (Afterwards::SayAndClose, Some(421))] {
        let (relay, mut connection) = connected(Script::default()).await;
        send(&mut connection, &letter("a")).await.unwrap();
        assert!(!connection.stirred(), "it is quiet");
        relay.change(|script| script.afterwards = afterwards);
        send(&mut connection, &letter("b")).await.unwrap();
        assert!(relay.wait_until(|counts| counts.open == 0).await);
        assert!(connection.stirred(), "{afterwards:?}");
        // And who does not look finds it at the first command, at no cost.
        let failure = connection.envelope(&letter("c")).await.unwrap_err();
        assert_eq!(place(&failure), (Stage::Mail, code));
        assert!(failure.stale);
        assert_eq!(meaning(&failure), Meaning::Reconnect);
        assert!(!connection.is_usable());
    }
}

#[tokio::test]
async fn message_is_sent_although_the_connection_ends_behind_it() {
    let (relay, mut connection) = connected(Script::default()).await;
    for n in 0..2 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
    relay.change(|script| script.afterwards = Afterwards::Close);
    let (third, fourth) = (letter("third"), letter("fourth"));
    connection.envelope(&third).await.unwrap();
    connection.content(&third, Some(&fourth)).await.unwrap();
    assert!(connection.is_begun());
    let failure = connection.envelope(&fourth).await.unwrap_err();
    assert_eq!(meaning(&failure), Meaning::Reconnect, "{failure:?}");
    assert_eq!(relay.journal().len(), 3);
}

#[tokio::test]
async fn limit_of_messages_is_learned_from_the_relay() {
    let relay = relay(Script { messages_per_connection: Some(3), ..Script::default() }).await;
    let connector = connector(smtp(&relay));
    let mut connection = connector.open().await.unwrap();
    for n in 0..3 {
        assert!(!connection.is_spent());
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
    let failure = connection.envelope(&letter("u4")).await.unwrap_err();
    assert_eq!(place(&failure), (Stage::Mail, Some(421)));
    assert_eq!(meaning(&failure), Meaning::Reconnect, "a new connection is all it takes");

    let mut connection = connector.open().await.unwrap();
    for n in 0..3 {
        let letter = letter(&format!("v{n}"));
        connection.envelope(&letter).await.unwrap();
        assert!(!connection.looks_ahead(), "the third is the last");
        connection.content(&letter, None).await.unwrap();
    }
    assert!(connection.is_spent());
}

#[tokio::test]
async fn relay_that_goes_down_teaches_no_limit() {
    for reply in ["421 4.3.2 Service shutting down", "421 4.4.2 Idle too long", "421 Bye"] {
        let relay = relay(Script {
            messages_per_connection: Some(3),
            limit_reply: reply.into(),
            ..Script::default()
        })
        .await;
        let connector = connector(smtp(&relay));
        let mut connection = connector.open().await.unwrap();
        for n in 0..3 {
            send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
        }
        let failure = connection.envelope(&letter("u4")).await.unwrap_err();
        assert_eq!(meaning(&failure), Meaning::Reconnect, "{reply}");
        relay.change(|script| script.messages_per_connection = None);
        let mut connection = connector.open().await.unwrap();
        for n in 0..5 {
            send(&mut connection, &letter(&format!("v{n}"))).await.unwrap();
        }
        assert!(!connection.is_spent(), "{reply}");
    }
}

#[tokio::test]
async fn first_message_of_a_new_connection_is_not_stale() {
    let (_relay, mut connection) = connected(Script {
        messages_per_connection: Some(0),
        limit_reply: "421 4.3.2 Service shutting down".into(),
        ..Script::default()
    })
    .await;
    let failure = connection.envelope(&letter("a")).await.unwrap_err();
    assert!(!failure.stale);
    assert_eq!(meaning(&failure), Meaning::Deferred);
}

#[tokio::test]
async fn message_that_the_relay_cannot_take_is_known_before_anything_is_written() {
    let (relay, mut connection) =
        connected(Script { smtputf8: false, size: Some(1_000), ..Script::default() }).await;
    for letter in [letter("用户"), large_letter("bob", 2_000)] {
        let failure = connection.envelope(&letter).await.unwrap_err();
        assert_eq!((failure.stage, &failure.cause), (Stage::Mail, &Cause::Unsupported));
        assert_eq!(meaning(&failure), Meaning::Rejected);
        assert!(connection.is_usable());
    }
    assert_eq!(relay.counts().of("MAIL"), 0);
    send(&mut connection, &letter("bob")).await.unwrap();
    let size = letter("bob").source.len();
    assert_eq!(relay.journal()[0].parameters, format!("SIZE={size}"));
}

#[tokio::test]
async fn parameters_are_sent_only_where_needed_and_offered() {
    let (relay, mut connection) = connected(Script::default()).await;
    send(&mut connection, &letter("bob")).await.unwrap();
    send(&mut connection, &letter("用户")).await.unwrap();
    let parameters: Vec<_> = relay.journal().into_iter().map(|message| message.parameters).collect();
    assert_eq!(parameters, ["", "SMTPUTF8 BODY=8BITMIME"]);
}

#[tokio::test]
async fn future_that_is_dropped_makes_the_connection_unusable() {
    let (relay, mut connection) = connected(Script::default()).await;
    // The first poll writes; the answer cannot have come.
    assert!(connection.envelope(&letter("bob")).now_or_never().is_none());
    assert!(!connection.is_usable());

    let mut connection = open(smtp(&relay)).await.unwrap();
    let mute = letter("mute");
    connection.envelope(&mute).await.unwrap();
    assert!(connection.content(&mute, None).now_or_never().is_none());
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn quit_is_said_and_not_waited_for_long() {
    let (relay, mut connection) = connected(Script::default()).await;
    send(&mut connection, &letter("bob")).await.unwrap();
    connection.quit().await;
    assert!(relay.wait_until(|counts| counts.open == 0).await);
    assert_eq!(relay.counts().of("QUIT"), 1);
}

#[tokio::test]
async fn relay_that_cannot_be_used_says_where_and_why() {
    let refusal = |greeting: &str| Script { greeting: Some(greeting.into()), ..Script::default() };
    let cases = [
        (refusal("421 4.3.2 going down"), Stage::Greeting, Some(421)),
        (refusal("554 5.7.1 no"), Stage::Greeting, Some(554)),
        (Script { ehlo_refusal: Some("550 5.7.1 no".into()), ..Script::default() }, Stage::Ehlo, Some(550)),
    ];
    for (script, stage, code) in cases {
        let relay = relay(script).await;
        let failure = open(smtp(&relay)).await.unwrap_err();
        assert_eq!(place(&failure), (stage, code));
        assert_eq!(meaning(&failure), Meaning::RelayDown);
        let probed = connector(smtp(&relay)).probe().await.unwrap_err();
        assert_eq!(place(&probed), (stage, code));
    }
}

#[tokio::test]
async fn relay_that_is_not_there_is_a_failure_to_connect() {
    let gone = relay(Script::default()).await;
    let mut smtp = smtp(&gone);
    gone.stop().await;
    let failure = open(smtp.clone()).await.unwrap_err();
    assert_eq!((failure.stage, &failure.cause), (Stage::Connect, &Cause::Closed));
    assert_eq!(meaning(&failure), Meaning::RelayDown);
    smtp.host = "no-such-host.invalid".into();
    let failure = open(smtp).await.unwrap_err();
    assert_eq!((failure.stage, meaning(&failure)), (Stage::Connect, Meaning::RelayDown));
}

#[tokio::test]
async fn silent_relay_is_given_up_at_the_greeting() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = relay(Script::default()).await;
    let mut smtp = smtp(&other);
    smtp.port = listener.local_addr().unwrap().port();
    smtp.command_timeout = SOON;
    let failure = open(smtp).await.unwrap_err();
    assert_eq!((failure.stage, &failure.cause), (Stage::Greeting, &Cause::TimedOut));
    assert_eq!(meaning(&failure), Meaning::RelayDown);
}

#[tokio::test]
async fn too_many_connections_slow_the_relay_down() {
    let relay = relay(Script { max_connections: Some(1), ..Script::default() }).await;
    let _first = open(smtp(&relay)).await.unwrap();
    let failure = open(smtp(&relay)).await.unwrap_err();
    assert_eq!(place(&failure), (Stage::Greeting, Some(421)));
    assert!(matches!(meaning(&failure), Meaning::Throttled { .. }), "{failure:?}");
    assert_eq!(relay.counts().peak, 2);
}

fn guarded(mechanisms: &str) -> Script {
    Script {
        login: Some(Login { mechanisms: mechanisms.into(), ..Login::new("me@example.com", "secret") }),
        ..Script::default()
    }
}

#[tokio::test]
async fn login_takes_plain_where_it_can_and_login_else() {
    for (mechanisms, commands) in [("LOGIN PLAIN XOAUTH2", 1), ("PLAIN", 1), ("LOGIN", 1)] {
        let relay = relay(guarded(mechanisms)).await;
        let mut smtp = smtp(&relay);
        smtp.credentials = login("me@example.com", "secret");
        let mut connection = open(smtp).await.unwrap();
        send(&mut connection, &letter("bob")).await.unwrap();
        assert_eq!(relay.journal()[0].login.as_deref(), Some("me@example.com"));
        assert_eq!(relay.counts().of("AUTH"), commands);
        // Greeting, EHLO, AUTH, envelope, content; LOGIN asks twice more.
        let asked = if mechanisms == "LOGIN" { 2 } else { 0 };
        connection.quit().await;
        assert!(relay.wait_until(|counts| counts.open == 0).await);
        assert_eq!(relay.counts().round_trips, 5 + asked, "{mechanisms}");
    }
}

#[tokio::test]
async fn login_without_a_common_mechanism_is_unsupported() {
    let relay = relay(guarded("XOAUTH2 GSSAPI")).await;
    let mut smtp = smtp(&relay);
    smtp.credentials = login("me@example.com", "secret");
    let failure = open(smtp).await.unwrap_err();
    assert_eq!((failure.stage, &failure.cause), (Stage::Auth, &Cause::Unsupported));
    assert_eq!(meaning(&failure), Meaning::RelayDown);
    assert_eq!(relay.counts().of("AUTH"), 0);
}

#[tokio::test]
async fn refused_login_is_the_relays_and_is_taken_when_it_is_right_again() {
    for reply in ["535 5.7.8 no", "454 4.7.0 Temporary authentication failure", "534 5.7.9 no", "550 no"] {
        let relay =
            relay(Script { login_refusal: reply.into(), login_refusals: 2, ..guarded("PLAIN LOGIN") }).await;
        let mut smtp = smtp(&relay);
        smtp.credentials = login("me@example.com", "secret");
        let connector = connector(smtp);
        for tries in 1..=2 {
            let failure = connector.open().await.unwrap_err();
            assert_eq!(failure.stage, Stage::Auth);
            for requested in [true, false] {
                assert_eq!(classify(&failure, requested), Meaning::RelayDown, "{reply}");
            }
            assert_eq!(relay.counts().of("AUTH"), tries, "no other mechanism is tried");
        }
        connector.probe().await.unwrap();
    }
}

#[tokio::test]
async fn missing_login_at_mail_is_the_relays() {
    let (_relay, mut connection) = connected(guarded("PLAIN")).await;
    let failure = refused(&mut connection, "bob").await;
    assert_eq!(place(&failure), (Stage::Mail, Some(530)));
    assert_eq!(classify(&failure, true), Meaning::RelayDown);
    assert_eq!(classify(&failure, false), Meaning::RelayDown);
}
