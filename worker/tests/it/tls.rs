//! TLS: with a root of our own, for implicit TLS and STARTTLS.

use lab::relay::{Login, Relay, Script, Tls as Offer};
use shared::classify::{Cause, Failure, Meaning};
use shared::reply::Stage;
use shared::settings::{Smtp, Tls};

use crate::support::{connector, letter, login, meaning, open, place, relay, send, smtp};

fn script(tls: Offer) -> Script {
    Script { tls, login: Some(Login::new("me@example.com", "secret")), ..Script::default() }
}

/// The client's mode that goes with what the relay offers.
fn mode(offer: Offer) -> Tls {
    match offer {
        Offer::None => Tls::None,
        Offer::Implicit => Tls::Implicit,
        Offer::Offered | Offer::Required => Tls::Starttls,
    }
}

fn settings(relay: &Relay, tls: Tls) -> Smtp {
    Smtp { tls, credentials: login("me@example.com", "secret"), ..smtp(relay) }
}

async fn fails(smtp: Smtp) -> Failure {
    let failure = open(smtp).await.unwrap_err();
    assert_eq!(meaning(&failure), Meaning::RelayDown);
    failure
}

#[tokio::test]
async fn login_and_message_go_over_tls() {
    for offer in [Offer::Implicit, Offer::Offered, Offer::Required] {
        let relay = relay(script(offer)).await;
        let mut connection = open(settings(&relay, mode(offer))).await.unwrap();
        for n in 0..4 {
            send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
        }
        assert!(!connection.stirred() && connection.looks_ahead(), "{offer:?}");
        let journal = relay.journal();
        assert_eq!(journal.len(), 4);
        assert!(journal.iter().all(|message| message.is_protected), "{offer:?}");
    }
}

#[tokio::test]
async fn auto_takes_starttls_where_it_is_offered_and_greets_again() {
    let relay = relay(script(Offer::Required)).await;
    let mut connection = open(settings(&relay, Tls::Auto)).await.unwrap();
    send(&mut connection, &letter("bob")).await.unwrap();
    assert!(relay.journal()[0].is_protected);
    // AUTH is announced only over TLS: it was known from the second EHLO.
    assert_eq!((relay.counts().of("EHLO"), relay.counts().of("STARTTLS")), (2, 1));
}

#[tokio::test]
async fn certificate_for_another_host_is_refused() {
    for offer in [Offer::Implicit, Offer::Offered] {
        let relay = relay(Script { certified_for: vec!["other.example".into()], ..script(offer) }).await;
        let failure = fails(settings(&relay, mode(offer))).await;
        assert_eq!((failure.stage, &failure.cause), (Stage::Tls, &Cause::Tls));
        assert_eq!(relay.counts().of("AUTH"), 0);
    }
}

#[tokio::test]
async fn host_name_of_the_settings_is_what_is_checked() {
    let relay = relay(Script { certified_for: vec!["localhost".into()], ..script(Offer::Implicit) }).await;
    fails(settings(&relay, Tls::Implicit)).await;
    let smtp = Smtp { host: "localhost".into(), ..settings(&relay, Tls::Implicit) };
    // The relay listens on 127.0.0.1 only: another address of the name is passed over.
    open(smtp).await.unwrap();
}

#[tokio::test]
async fn certificate_of_an_unknown_root_is_refused() {
    for offer in [Offer::Implicit, Offer::Offered] {
        let relay = relay(script(offer)).await;
        let smtp = Smtp { ca_file: None, ..settings(&relay, mode(offer)) };
        let failure = fails(smtp).await;
        assert_eq!((failure.stage, &failure.cause), (Stage::Tls, &Cause::Tls));
        assert!(failure.detail.contains("UnknownIssuer"), "{}", failure.detail);
        assert_eq!(relay.counts().of("AUTH"), 0);
    }
}

#[tokio::test]
async fn starttls_that_is_required_and_not_offered_sends_no_password() {
    let relay = relay(script(Offer::None)).await;
    let failure = fails(settings(&relay, Tls::Starttls)).await;
    assert_eq!((failure.stage, &failure.cause), (Stage::Tls, &Cause::Tls));
    assert_eq!(relay.counts().of("AUTH"), 0);
}

#[tokio::test]
async fn auto_logs_in_without_tls_on_loopback_only() {
    let relay = relay(script(Offer::None)).await;
    open(settings(&relay, Tls::Auto)).await.unwrap();
    assert_eq!(relay.counts().of("AUTH"), 1);
}

#[tokio::test]
async fn plaintext_injected_behind_starttls_is_refused() {
    let relay = relay(Script { injected: Some("250 AUTH PLAIN".into()), ..script(Offer::Offered) }).await;
    let failure = fails(settings(&relay, Tls::Auto)).await;
    assert_eq!((failure.stage, &failure.cause), (Stage::Tls, &Cause::Garbled));
    assert_eq!(relay.counts().of("AUTH"), 0);
}

#[tokio::test]
async fn plain_client_on_a_tls_port_and_the_other_way_round_do_not_hang() {
    let implicit = relay(script(Offer::Implicit)).await;
    let mut smtp = settings(&implicit, Tls::None);
    smtp.command_timeout = std::time::Duration::from_millis(300);
    let failure = fails(smtp).await;
    assert_eq!(failure.stage, Stage::Greeting);

    let plain = relay(script(Offer::None)).await;
    let mut smtp = settings(&plain, Tls::Implicit);
    smtp.connect_timeout = std::time::Duration::from_secs(5);
    let failure = fails(smtp).await;
    assert_eq!(place(&failure), (Stage::Tls, None));
}

#[tokio::test]
async fn second_connection_resumes_the_tls_session() {
    for offer in [Offer::Implicit, Offer::Offered] {
        let relay = relay(script(offer)).await;
        let connector = connector(settings(&relay, mode(offer)));
        for n in 0..2 {
            let mut connection = connector.open().await.unwrap();
            send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
            connection.quit().await;
        }
        assert_eq!(relay.counts().resumed, 1, "{offer:?}");
    }
}

#[tokio::test]
async fn ca_file_that_cannot_be_used_names_its_setting() {
    let relay = relay(Script::default()).await;
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in [empty.path(), std::path::Path::new("/no/such/file.pem")] {
        let smtp = Smtp { ca_file: Some(path.into()), ..smtp(&relay) };
        let error = worker::smtp::Connector::try_new(std::sync::Arc::new(smtp)).unwrap_err();
        assert_eq!(error.setting, "SMTP_CA_FILE");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
