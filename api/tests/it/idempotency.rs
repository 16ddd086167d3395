//! Requests that are repeated.

use std::sync::Arc;

use serde_json::json;

use crate::support::{App, plain, plain_but};

#[tokio::test]
async fn same_key_and_body_replay_the_first_answer_and_queue_nothing() {
    let app = App::start().await;
    let mail = plain("a@example.com");
    let first = app.post_mail_with_key(&mail, "order-42").await;
    let again = app.post_mail_with_key(&mail, "order-42").await;
    assert_eq!((again.status.as_u16(), &again.body), (202, &first.body));
    assert_eq!(
        (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"].to_str().unwrap()),
        (None, "true")
    );
    assert_eq!(app.ledger().await["accepted"], 1);
    let other = app.post_mail_with_key(&plain("b@example.com"), "order-42").await;
    assert_eq!(other.problem(), (422, "idempotency_key_reuse", vec![]));
    assert_eq!(app.post_mail_with_key(&mail, "order-43").await.status, 202);
    assert_eq!(app.ledger().await["accepted"], 2);
}

#[tokio::test]
async fn idempotency_key_must_be_printable_ascii() {
    let app = App::start().await;
    for key in ["", &"x".repeat(257), "a\tb"] {
        let answer = app.post_mail_with_key(&plain("a@b.c"), key).await;
        assert_eq!(answer.problem().2, ["Idempotency-Key: invalid_value"], "{key:?}");
    }
}

#[tokio::test]
async fn requests_at_once_with_one_key_are_one_batch() {
    let app = App::start().await;
    let mail = plain("a@example.com");
    let answers = futures::future::join_all((0..20).map(|_| app.post_mail_with_key(&mail, "order-42"))).await;
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body));
    let first = answers.iter().filter(|answer| !answer.headers.contains_key("idempotency-replayed"));
    assert_eq!((first.count(), &app.ledger().await["accepted"]), (1, &json!(1)));
}

#[tokio::test]
async fn what_was_accepted_is_replayed_when_it_would_be_refused_now() {
    let before = App::start_with(&[("MAIL_ALLOWED_FROM", "*")]).await;
    let mut templated = plain_but("body", serde_json::Value::Null);
    templated["template_id"] = json!("notification_email");
    templated["template_data"] = json!({"title": "t", "message": "m"});
    let foreign = plain_but("from", json!("a@elsewhere.example"));
    let mut first = Vec::new();
    for (mail, key) in [(&templated, "1"), (&foreign, "2")] {
        first.push(before.post_mail_with_key(mail, key).await);
    }
    let no_templates = tempfile::tempdir().unwrap();
    let now = App::start_on(Arc::clone(&before.queue), &[], Some(no_templates.path())).await;
    assert_eq!(now.post_mail(&templated).await.problem().2, ["/template_id unknown_template"]);
    assert_eq!(now.post_mail(&foreign).await.problem().1, "sender_not_allowed");
    for ((mail, key), first) in [(&templated, "1"), (&foreign, "2")].into_iter().zip(&first) {
        let again = now.post_mail_with_key(mail, key).await;
        assert_eq!((again.status.as_u16(), &again.body), (202, &first.body));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.headers["location"], first.headers["location"]);
    }
    assert_eq!(now.ledger().await["accepted"], 2);
}

#[tokio::test]
async fn key_of_one_caller_is_not_another_ones() {
    let app = App::start_with(&[("API_KEYS", "app:one,shop:two")]).await;
    let post = async |key: &str| {
        let request = app.request(reqwest::Method::POST, "/v1/send-event-email").bearer_auth(key);
        app.send(request.header("Idempotency-Key", "order-42").json(&plain("a@example.com"))).await
    };
    let (one, two) = (post("one").await, post("two").await);
    assert_ne!(one.body["batch_id"], two.body["batch_id"]);
    assert_eq!(post("one").await.body, one.body);
}

#[tokio::test]
async fn replay_is_answered_by_a_full_queue() {
    let app = App::start_with(&[("MAX_QUEUE_SIZE", "1")]).await;
    let mail = plain("a@example.com");
    let first = app.post_mail_with_key(&mail, "order-42").await;
    assert_eq!(app.post_mail(&mail).await.problem().1, "queue_full");
    assert_eq!(app.post_mail_with_key(&mail, "order-42").await.body, first.body);
}
