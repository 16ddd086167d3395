//! Mails that are accepted.

use serde_json::json;

use crate::support::{App, plain_but};

#[tokio::test]
async fn accepted_mail_is_promised_with_a_job_per_recipient() {
    let app = App::start().await;
    let mail = json!({
        "subject": "你好", "recipients": ["A@Example.com", {"email": "b@例子.中国", "name": "王伟"}], "body": "<p>Hi</p>",
        "reply_to": "Help <help@example.com>", "headers": {"X-Campaign": "spring"}, "priority": "high",
        "tags": ["welcome"], "metadata": {"order": 42}, "on_ambiguous": "hold", "text": "",
    });
    let answer = app.post_mail(&mail).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let batch = answer.body["batch_id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/v1/batches/{batch}"));
    assert_eq!(
        answer.body,
        json!({
            "message": "Jobs accepted for processing.", "count": 2, "batch_id": batch,
            "jobs": [
                {"id": format!("{batch}-0"), "recipient": "A@example.com", "status": "queued"},
                {"id": format!("{batch}-1"), "recipient": "b@xn--fsqu00a.xn--fiqs8s", "status": "queued"},
            ],
        })
    );
    let job = app.get(&format!("/v1/jobs/{batch}-1")).await.body;
    assert_eq!(
        (&job["status"], &job["priority"], &job["tags"]),
        (&json!("queued"), &json!("high"), &json!(["welcome"]))
    );
    assert_eq!(
        (&job["metadata"], &job["attempts"], &job["max_attempts"]),
        (&json!({"order": 42}), &json!(0), &json!(4))
    );
    assert_eq!(job["message_id"], format!("{batch}-1@example.com"));
}

#[tokio::test]
async fn mail_with_a_later_send_at_is_scheduled_and_with_a_past_one_queued() {
    let app = App::start().await;
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).to_string();
    for (send_at, status) in [(later.as_str(), "scheduled"), ("2020-01-01T00:00:00+08:00", "queued")] {
        let answer = app.post_mail(&plain_but("send_at", json!(send_at))).await;
        assert_eq!((answer.status.as_u16(), &answer.body["jobs"][0]["status"]), (202, &json!(status)));
    }
    assert_eq!((&app.ledger().await["scheduled"], &app.ledger().await["queued"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn template_is_found_by_its_id_or_by_its_name_and_a_locale() {
    let app = App::start().await;
    let data = json!({"title": "标题", "message": "内容"});
    for mail in [
        json!({"recipients": ["a@b.cn"], "template_id": "zh/notification_email.html", "template_data": data}),
        json!({"recipients": ["a@b.cn"], "template_id": "notification_email", "locale": "zh-CN", "template_data": data}),
        json!({"recipients": ["a@b.cn"], "template_id": "notification_email", "subject": "{{ title }}!", "template_data": data}),
        json!({"recipients": [{"email": "a@b.cn", "data": {"title": "t"}}], "template_id": "notification_email", "template_data": {"message": "m"}}),
    ] {
        assert_eq!(app.post_mail(&mail).await.status, 202, "{mail}");
    }
}

#[tokio::test]
async fn dry_run_shows_the_message_and_queues_nothing() {
    let app = App::start().await;
    let mail = json!({
        "recipients": ["a@b.cn", {"email": "b@b.cn", "data": {"title": "Zwei"}}], "template_id": "notification_email",
        "template_data": {"title": "One", "message": "m"}, "dry_run": true,
    });
    let answer = app.post_mail(&mail).await;
    assert_eq!((answer.status.as_u16(), &answer.body["count"]), (200, &json!(2)), "{:?}", answer.body);
    let shown = &answer.body["messages"];
    assert_eq!((&shown[0]["subject"], &shown[1]["subject"]), (&json!("One"), &json!("Zwei")));
    assert!(
        shown[1]["html"].as_str().unwrap().contains("Zwei")
            && shown[1]["text"].as_str().unwrap().contains("Zwei")
    );
    assert!(shown[0]["source"].as_str().unwrap().contains("Subject: One\r\n"), "{}", shown[0]["source"]);
    assert_eq!(shown[1]["recipient"], "b@b.cn");
    let headers = shown[0]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({"name": "Subject", "value": "One"})), "{headers:?}");
    assert_eq!(app.ledger().await["accepted"], 0);
}

#[tokio::test]
async fn dry_run_of_many_shows_the_first_ten() {
    let app = App::start().await;
    let mut mail = plain_but("dry_run", json!(true));
    mail["recipients"] = (0..30).map(|n| format!("user{n}@b.cn")).collect();
    let answer = app.post_mail(&mail).await.body;
    assert_eq!((&answer["count"], answer["messages"].as_array().unwrap().len()), (&json!(30), 10));
}

#[tokio::test]
async fn sender_of_the_request_takes_the_configured_ones_place() {
    let app = App::start().await;
    let mut mail = plain_but("from", json!("Sales <sales@example.com>"));
    mail["dry_run"] = true.into();
    let source = app.post_mail(&mail).await.body["messages"][0]["source"].to_string();
    assert!(source.contains("sales@example.com") && !source.contains("noreply@example.com"), "{source}");
}

#[tokio::test]
async fn thousand_recipients_are_one_batch() {
    let app = App::start().await;
    let recipients: Vec<_> =
        (0..1000).map(|n| json!({"email": format!("user{n}@b.cn"), "data": {"n": n}})).collect();
    let mail = json!({
        "recipients": recipients, "template_id": "notification_email", "template_data": {"title": "t", "message": "m"},
    });
    let answer = app.post_mail(&mail).await;
    assert_eq!((answer.status.as_u16(), &answer.body["count"]), (202, &json!(1000)));
    assert_eq!(app.ledger().await["queued"], 1000);
}
