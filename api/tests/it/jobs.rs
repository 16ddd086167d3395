//! What is told of jobs, and what may be ordered.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::job::Reason;
use shared::queue::{Consumer, ConsumerId, Verdict};

use crate::support::{App, plain_but};

fn in_hours(hours: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).to_string()
}

async fn patch(app: &App, id: &str, body: Value) -> crate::support::Answer {
    app.send(app.request(Method::PATCH, &format!("/v1/jobs/{id}")).json(&body)).await
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_404() {
    let app = App::start().await;
    for path in [
        "/v1/jobs/x",
        "/v1/jobs/06h0pqn761opr2rpaduas4t4m0-0",
        "/v1/batches/x",
        "/v1/batches/06h0pqn761opr2rpaduas4t4m0",
        "/v1/outbox/x",
    ] {
        assert_eq!(app.get(path).await.problem(), (404, "not_found", vec![]), "{path}");
    }
    for path in ["/v1/jobs/x/cancel", "/v1/jobs/x/requeue", "/v1/batches/x/cancel"] {
        assert_eq!(app.post(path).await.problem(), (404, "not_found", vec![]), "{path}");
    }
    assert_eq!(patch(&app, "x", json!({"send_at": in_hours(1)})).await.status, 404);
}

#[tokio::test]
async fn listing_is_newest_first_filtered_and_paged() {
    let app = App::start().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut mail = plain_but("tags", json!([if n % 2 == 0 { "even" } else { "odd" }]));
        mail["recipients"] = json!([format!("user{n}@example.com")]);
        let answer = app.post_mail(&mail).await;
        ids.push(answer.body["jobs"][0]["id"].as_str().unwrap().to_owned());
    }
    let listed = async |query: &str| -> (Vec<usize>, Value) {
        let page = app.get(&format!("/v1/jobs{query}")).await.body;
        let data = page["data"].as_array().unwrap().iter();
        let order = data.map(|job| ids.iter().position(|id| *id == job["id"]).unwrap()).collect();
        (order, page["next"].clone())
    };
    assert_eq!(listed("").await, (vec![4, 3, 2, 1, 0], Value::Null));
    let (first, next) = listed("?limit=2").await;
    assert_eq!(first, [4, 3]);
    let (second, next) = listed(&format!("?limit=2&after={}", next.as_str().unwrap())).await;
    assert_eq!(second, [2, 1]);
    assert_eq!(listed(&format!("?limit=2&after={}", next.as_str().unwrap())).await, (vec![0], Value::Null));
    assert_eq!(listed("?tag=odd").await.0, [3, 1]);
    assert_eq!(listed("?recipient=USER2@example.com").await.0, [2]);
    app.post(&format!("/v1/jobs/{}/cancel", ids[1])).await;
    assert_eq!(listed("?status=cancelled").await.0, [1]);
    let answer = app.get("/v1/jobs?status=x&limit=0&limit=5&after=y&foo=1&recipient=z").await;
    let expected = [
        "?status invalid_value",
        "?limit invalid_value",
        "?limit duplicate",
        "?after invalid_value",
        "?foo unknown_field",
        "?recipient invalid_address",
    ];
    assert_eq!(answer.problem(), (422, "invalid_request", expected.map(ToOwned::to_owned).to_vec()));
    let answer = app.get(&format!("/v1/jobs?{}", "a&".repeat(20_000))).await;
    assert_eq!(answer.problem().2, ["? too_many"]);
}

#[tokio::test]
async fn queued_job_can_be_cancelled_once_and_a_sending_one_cannot() {
    let app = App::start().await;
    let id = app.mail("a@example.com").await;
    let answer = app.post(&format!("/v1/jobs/{id}/cancel")).await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!("cancelled")));
    assert_eq!(app.post(&format!("/v1/jobs/{id}/cancel")).await.problem(), (409, "conflict", vec![]));
    let id = app.mail("b@example.com").await;
    let me = ConsumerId::generate();
    Consumer::claim(&*app.queue, &me, 1).await.unwrap();
    assert_eq!(app.post(&format!("/v1/jobs/{id}/cancel")).await.problem(), (409, "conflict", vec![]));
}

#[tokio::test]
async fn failed_and_held_jobs_can_be_requeued() {
    let app = App::start().await;
    for verdict in [Verdict::Fail(Reason::Permanent), Verdict::Hold] {
        let id = app.mail("a@example.com").await;
        app.settle_next(verdict).await;
        let answer = app.post(&format!("/v1/jobs/{id}/requeue")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["status"], &answer.body["attempts"]),
            (200, &json!("queued"), &json!(0))
        );
        assert_eq!(answer.body.get("reason"), None);
        app.settle_next(Verdict::Sent).await;
        assert_eq!(app.post(&format!("/v1/jobs/{id}/requeue")).await.problem(), (409, "conflict", vec![]));
    }
}

#[tokio::test]
async fn retrying_job_tells_when_and_why() {
    let app = App::start().await;
    let id = app.mail("a@example.com").await;
    app.settle_next(Verdict::Retry { delay: Duration::from_mins(1) }).await;
    let job = app.get(&format!("/v1/jobs/{id}")).await.body;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("retrying"), &json!(1)));
    assert!(job["next_attempt_at"].as_str().unwrap() > job["accepted_at"].as_str().unwrap());
    assert_eq!(job["timeline"][1]["event"], "retrying");
}

#[tokio::test]
async fn scheduled_job_can_be_moved() {
    let app = App::start().await;
    let answer = app.post_mail(&plain_but("send_at", json!(in_hours(2)))).await;
    let id = answer.body["jobs"][0]["id"].as_str().unwrap().to_owned();
    let later = in_hours(5);
    let moved = patch(&app, &id, json!({"send_at": later})).await;
    assert_eq!((moved.status.as_u16(), &moved.body["status"]), (200, &json!("scheduled")));
    assert_eq!(moved.body["send_at"].as_str().unwrap()[..19], later[..19]);
    for (body, fault) in [
        (json!({}), "/send_at required"),
        (json!({"send_at": 5}), "/send_at wrong_type"),
        (json!({"send_at": "x"}), "/send_at invalid_time"),
        (json!({"send_at": in_hours(31 * 24)}), "/send_at invalid_time"),
        (json!([]), " wrong_type"),
    ] {
        assert_eq!(patch(&app, &id, body).await.problem(), (422, "invalid_request", vec![fault.to_owned()]));
    }
    let now = patch(&app, &id, json!({"send_at": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(now.body["status"], "queued");
    assert_eq!(patch(&app, &id, json!({"send_at": later})).await.problem(), (409, "conflict", vec![]));
}

#[tokio::test]
async fn batch_is_counted_by_status_and_cancelled_as_a_whole() {
    let app = App::start().await;
    let answer = app.post_mail(&plain_but("recipients", json!(["a@b.c", "b@b.c", "c@b.c"]))).await;
    let batch = answer.body["batch_id"].as_str().unwrap().to_owned();
    app.settle_next(Verdict::Sent).await;
    let answer = app.post(&format!("/v1/batches/{batch}/cancel")).await;
    assert_eq!(answer.body, json!({"id": batch, "cancelled": 2}));
    let view = app.get(&format!("/v1/batches/{batch}")).await.body;
    assert_eq!(
        (&view["count"], &view["statuses"]["sent"], &view["statuses"]["cancelled"]),
        (&json!(3), &json!(1), &json!(2))
    );
}

#[tokio::test]
async fn queue_tells_its_ledger_and_stops_and_goes_on() {
    let app = App::start().await;
    app.mail("a@example.com").await;
    let queue = app.post("/v1/queue/pause").await;
    assert_eq!(queue.body, json!({"paused": true}));
    let queue = app.get("/v1/queue").await.body;
    let ledger = queue["ledger"].as_object().unwrap();
    assert_eq!(ledger.len(), 10);
    let (accepted, rest): (Vec<_>, Vec<_>) = ledger.iter().partition(|(name, _)| *name == "accepted");
    assert_eq!(accepted[0].1.as_u64(), Some(rest.iter().filter_map(|(_, n)| n.as_u64()).sum()));
    assert_eq!(
        (&queue["paused"], &queue["ready"]),
        (&json!(true), &json!({"high": 0, "normal": 1, "bulk": 0}))
    );
    assert!(queue["oldest_seconds"]["normal"].is_u64() && queue["workers"]["alive"].is_u64());
    let id = app.mail("b@example.com").await;
    let claimed = Consumer::claim(&*app.queue, &ConsumerId::generate(), 10).await.unwrap();
    assert_eq!(claimed.len(), 0, "a paused queue hands out");
    assert_eq!(app.post("/v1/queue/resume").await.body, json!({"paused": false}));
    app.work();
    app.until_sent(&id).await;
}
