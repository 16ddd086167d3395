//! Requests that break a rule.

use serde_json::{Map, Value, json};

use crate::support::{App, plain, plain_but};

/// One broken rule, and what is told of it.
async fn assert_refused(app: &App, mail: Value, fault: &str) {
    let answer = app.post_mail(&mail).await;
    assert_eq!(answer.problem(), (422, "invalid_request", vec![fault.to_owned()]), "{mail}");
}

#[tokio::test]
async fn every_rule_has_its_pointer_and_its_code() {
    let app = App::start().await;
    let many: Vec<String> = (0..1001).map(|n| format!("u{n}@b.cn")).collect();
    let tags: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    for (name, value, fault) in [
        ("subject", Value::Null, "/subject required"),
        ("subject", json!(""), "/subject required"),
        ("subject", json!(5), "/subject wrong_type"),
        ("subject", json!("x".repeat(999)), "/subject too_long"),
        ("subject", json!("a\r\nBcc: b@c.d"), "/subject control_character"),
        ("recipients", Value::Null, "/recipients required"),
        ("recipients", json!([]), "/recipients required"),
        ("recipients", json!("a@b.c"), "/recipients wrong_type"),
        ("recipients", json!(many), "/recipients too_many"),
        ("recipients", json!(["nobody"]), "/recipients/0 invalid_address"),
        ("recipients", json!(["a@b.c", 5]), "/recipients/1 wrong_type"),
        ("recipients", json!([{"name": "x"}]), "/recipients/0/email required"),
        ("recipients", json!([{"email": "a b@c.d"}]), "/recipients/0/email invalid_address"),
        ("recipients", json!([{"email": "a@b.c", "name": "a\nb"}]), "/recipients/0/name control_character"),
        ("recipients", json!([{"email": "a@b.c", "data": []}]), "/recipients/0/data wrong_type"),
        (
            "recipients",
            json!([{"email": "a@b.c", "public_key": "k"}]),
            "/recipients/0/public_key unknown_field",
        ),
        ("recipients", json!(["a@b.c", "x@b.c", "A@B.C"]), "/recipients/2 duplicate"),
        ("body", Value::Null, "/body required"),
        ("body", json!(""), "/body required"),
        ("body", json!("a\u{0}b"), "/body control_character"),
        ("template_id", json!("x"), "/template_id conflict"),
        ("template_data", json!({}), "/template_data conflict"),
        ("from", json!("nobody"), "/from invalid_address"),
        ("reply_to", json!("a@b.c\r\nBcc: d@e.f"), "/reply_to invalid_address"),
        ("headers", json!({"Subject": "x"}), "/headers/Subject forbidden_header"),
        ("headers", json!({"content-type": "x"}), "/headers/content-type forbidden_header"),
        ("headers", json!({"X-A": "a\r\nBcc: b@c.d"}), "/headers/X-A control_character"),
        ("headers", json!({"X A": "a"}), "/headers/X A invalid_value"),
        ("headers", json!({"X/A~": 5}), "/headers/X~1A~0 wrong_type"),
        ("send_at", json!("2026-11-24T09:00:00"), "/send_at invalid_time"),
        ("send_at", json!("2026-11-24T09:00Z"), "/send_at invalid_time"),
        ("send_at", json!("20261124T090000Z"), "/send_at invalid_time"),
        ("send_at", json!("2026-11-24T09:00:00+08"), "/send_at invalid_time"),
        ("send_at", json!("2026-11-24T09:00:00+08:00[Asia/Shanghai]"), "/send_at invalid_time"),
        ("send_at", json!("2999-01-01T00:00:00Z"), "/send_at invalid_time"),
        ("priority", json!("urgent"), "/priority invalid_value"),
        ("tags", json!(tags), "/tags too_many"),
        ("tags", json!(["a", "a"]), "/tags/1 duplicate"),
        ("metadata", json!({"x": "y".repeat(5_000)}), "/metadata too_long"),
        ("on_ambiguous", json!("maybe"), "/on_ambiguous invalid_value"),
        ("dry_run", json!("yes"), "/dry_run wrong_type"),
        ("cc", json!(["a@b.c"]), "/cc unknown_field"),
        ("bcc", json!(["a@b.c"]), "/bcc unknown_field"),
        ("attachments", json!([]), "/attachments unknown_field"),
        ("callback_url", json!("https://x"), "/callback_url unknown_field"),
        ("encryption", json!("pgp"), "/encryption unknown_field"),
        ("list_unsubscribe", json!("https://x"), "/list_unsubscribe unknown_field"),
    ] {
        assert_refused(&app, plain_but(name, value), fault).await;
    }
    assert_eq!(app.ledger().await["accepted"], 0);
}

#[tokio::test]
async fn all_broken_rules_are_told_at_once() {
    let app = App::start().await;
    let mail = json!({
        "subject": 5, "recipients": ["x", {"email": "a@b.c", "foo": 1}, "A@b.c"], "priority": "urgent", "cc": [],
        "headers": {"Bcc": "x"}, "send_at": "tomorrow",
    });
    let answer = app.post_mail(&mail).await;
    let (status, code, mut faults) = answer.problem();
    faults.sort();
    assert_eq!((status, code), (422, "invalid_request"));
    assert_eq!(
        faults,
        [
            "/body required",
            "/cc unknown_field",
            "/headers/Bcc forbidden_header",
            "/priority invalid_value",
            "/recipients/0 invalid_address",
            "/recipients/1/foo unknown_field",
            "/recipients/2 duplicate",
            "/send_at invalid_time",
            "/subject wrong_type",
        ]
    );
}

#[tokio::test]
async fn template_faults_are_told_before_anything_is_queued() {
    let app = App::start().await;
    let mail =
        |id: &str, data: Value| json!({"recipients": ["a@b.cn"], "template_id": id, "template_data": data});
    let data = json!({"title": "t", "message": "m"});
    for id in ["nothing", "../en/notification_email.html", "/etc/passwd", "_layout.html"] {
        assert_refused(&app, mail(id, data.clone()), "/template_id unknown_template").await;
    }
    let answer = app.post_mail(&mail("notification_email", json!({"title": "t"}))).await;
    assert_eq!(answer.problem().2, ["/template_data undefined_variable"]);
    let message = answer.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("line") && message.contains("message is not defined"), "{message}");
    let mut own = mail("notification_email", data);
    own["recipients"] = json!(["a@b.cn", {"email": "b@b.cn", "data": {"title": "x\ny"}}]);
    assert_refused(&app, own.clone(), "/recipients/1/data invalid_value").await;
    own["subject"] = json!("{{ nobody }}");
    let answer = app.post_mail(&own).await;
    assert_eq!(
        answer.problem().2,
        ["/template_data undefined_variable", "/recipients/1/data undefined_variable"]
    );
    assert_eq!(app.ledger().await["accepted"], 0);
}

#[tokio::test]
async fn what_is_not_json_is_400_and_what_is_too_large_413() {
    let app = App::start_with(&[("SERVER_MAX_BODY", "64KiB")]).await;
    for body in ["", "{", "{\"subject\": \"\u{1}\"}", "{\"subject\":\"a\",\"subject\":\"b\"}"] {
        assert_eq!(app.post_raw(body).await.problem(), (400, "malformed_json", vec![]), "{body}");
    }
    assert_eq!(app.post_raw(b"{\"subject\":\"\xff\"}".to_vec()).await.problem().1, "malformed_json");
    let deep = format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(200), "}".repeat(200));
    assert_eq!(app.post_raw(deep).await.problem().1, "malformed_json");
    assert_eq!(app.post_raw("[]").await.problem(), (422, "invalid_request", vec![" wrong_type".to_owned()]));
    let large = plain_but("body", json!("x".repeat(70_000)));
    assert_eq!(app.post_mail(&large).await.problem(), (413, "too_large", vec![]));
}

#[tokio::test]
async fn faults_of_one_place_are_told_beside_each_other() {
    let app = App::start().await;
    let mut mail = plain_but("tags", json!(["", 5, "a", "a"]));
    mail["recipients"] = json!([{"email": 5, "name": 5, "foo": 1}, {"name": "a\nb", "data": []}]);
    mail["template_id"] = json!(7);
    mail["headers"] = json!({"X-A": 5, "X B": "a\nb"});
    let answer = app.post_mail(&mail).await;
    let mut faults = answer.problem().2;
    faults.sort();
    assert_eq!(
        faults,
        [
            "/headers/X B control_character",
            "/headers/X B invalid_value",
            "/headers/X-A wrong_type",
            "/recipients/0/email wrong_type",
            "/recipients/0/foo unknown_field",
            "/recipients/0/name wrong_type",
            "/recipients/1/data wrong_type",
            "/recipients/1/email required",
            "/recipients/1/name control_character",
            "/tags/0 required",
            "/tags/1 wrong_type",
            "/tags/3 duplicate",
            "/template_id wrong_type",
        ]
    );
}

#[tokio::test]
async fn hostile_body_costs_neither_time_nor_a_long_answer() {
    let app = App::start().await;
    let tags: Vec<String> = (0..150_000).map(|n| n.to_string()).collect();
    assert_refused(&app, plain_but("tags", json!(tags)), "/tags too_many").await;
    let headers: Map<String, Value> = tags.iter().map(|tag| (format!("X-{tag}"), "".into())).collect();
    assert_refused(&app, plain_but("headers", headers.into()), "/headers too_many").await;
    let mut unknown: Map<String, Value> = tags.iter().map(|tag| (format!("x{tag}"), 1.into())).collect();
    unknown.append(plain("a@b.c").as_object_mut().unwrap());
    let answer = app.post_mail(&unknown.into()).await;
    assert_eq!(answer.problem().2.len(), 5_000);
    // Values that take a hundred times as much memory as room in a body, in a field that has no limit of its own.
    let many = vec![json!({"": 0}); 150_000];
    let mail =
        json!({"template_id": "notification_email", "recipients": ["a@b.c"], "template_data": {"z": many}});
    assert_refused(&app, mail, " too_long").await;
}

#[tokio::test]
async fn list_of_an_object_s_values_is_no_object() {
    let app = App::start().await;
    assert_refused(&app, json!(["Hello", ["a@b.c"], "<p>Hi</p>"]), " wrong_type").await;
}

#[tokio::test]
async fn locale_is_a_language_tag() {
    let app = App::start().await;
    for locale in ["", "../en", &"-".repeat(250_000), "zh CN"] {
        let mut mail =
            json!({"template_id": "notification_email", "recipients": ["a@b.c"], "locale": locale});
        mail["template_data"] = json!({"title": "t", "message": "m"});
        assert_refused(&app, mail, "/locale invalid_value").await;
    }
}

#[tokio::test]
async fn name_of_a_sender_has_a_limit() {
    let app = App::start().await;
    let long = format!("{} <a@example.com>", "n".repeat(257));
    assert_refused(&app, plain_but("reply_to", json!(long)), "/reply_to too_long").await;
}

#[tokio::test]
async fn data_that_is_nested_too_deeply_to_be_stored_is_refused() {
    let app = App::start().await;
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    assert_eq!(app.post_mail(&plain_but("metadata", nested(100))).await.status, 202);
    assert_refused(&app, plain_but("metadata", nested(101)), "/metadata invalid_value").await;
    let mut mail =
        json!({"template_id": "notification_email", "recipients": [{"email": "a@b.c", "data": nested(101)}]});
    mail["template_data"] = json!({"title": "t", "message": "m"});
    assert_refused(&app, mail.clone(), "/recipients/0/data invalid_value").await;
    mail["recipients"] = json!(["a@b.c"]);
    mail["template_data"]["extra"] = nested(100);
    assert_refused(&app, mail, "/template_data invalid_value").await;
}

#[tokio::test]
async fn faults_of_rendering_are_bounded() {
    let app = App::start().await;
    let recipients: Vec<Value> =
        (0..100).map(|n| json!({"email": format!("u{n}@b.c"), "data": {"n": n}})).collect();
    let mail = json!({"template_id": "notification_email", "recipients": recipients});
    let answer = app.post_mail(&mail).await;
    let faults = answer.problem().2;
    assert_eq!((faults.len(), faults[0].as_str()), (20, "/recipients/0/data undefined_variable"));
}

#[tokio::test]
async fn sender_must_be_allowed() {
    let app = App::start_with(&[("MAIL_ALLOWED_FROM", "example.com,other.example")]).await;
    assert_eq!(app.post_mail(&plain_but("from", json!("Sales <sales@other.example>"))).await.status, 202);
    let answer = app.post_mail(&plain_but("from", json!("ceo@elsewhere.example"))).await;
    assert_eq!(answer.problem(), (403, "sender_not_allowed", vec![]));
}

#[tokio::test]
async fn full_queue_is_503_and_a_batch_that_never_fits_422() {
    let app = App::start_with(&[("MAX_QUEUE_SIZE", "2"), ("JOBS_MAX_SCHEDULED", "1")]).await;
    let three = plain_but("recipients", json!(["a@b.c", "b@b.c", "c@b.c"]));
    assert_refused(&app, three, "/recipients too_many").await;
    for to in ["a@b.c", "b@b.c"] {
        app.mail(to).await;
    }
    let answer = app.post_mail(&plain("c@b.c")).await;
    assert_eq!(answer.problem(), (503, "queue_full", vec![]));
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).to_string();
    assert_eq!(app.post_mail(&plain_but("send_at", json!(later))).await.status, 202);
    let answer = app.post_mail(&plain_but("send_at", json!(later))).await;
    assert_eq!(answer.problem(), (503, "schedule_full", vec![]));
    assert_eq!(app.get("/v1/queue").await.body["capacity"], json!({"used": 2, "max": 2}));
}
