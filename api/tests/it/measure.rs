//! What `/metrics` tells.

use serde_json::json;

use crate::support::{App, plain, plain_but};

/// The value of the series that begins with this text, up to its value.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in {metrics}")).parse().unwrap()
}

// The tests of a process share its recorder: counters are at least what a test did, and only this test reads gauges.
#[tokio::test]
async fn requests_and_jobs_are_counted_by_patterns_and_words() {
    let app = App::start().await;
    let id = app.mail("a@example.com").await;
    let mut two = plain("b@example.com");
    two["recipients"] = json!(["b@example.com", "c@example.com"]);
    two["priority"] = json!("bulk");
    app.post_mail(&two).await;
    app.post_mail(&plain_but("subject", json!(""))).await;
    app.get(&format!("/v1/jobs/{id}")).await;
    app.get("/nowhere/secret@example.com").await;
    app.post(&format!("/v1/jobs/{id}/cancel")).await;
    let answer = app.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let metrics = answer.body.as_str().unwrap();
    for (series, at_least) in [
        ("emailer_jobs_accepted_total", 3.0),
        (r#"emailer_jobs_finished_total{status="cancelled",reason=""}"#, 1.0),
        (r#"emailer_http_requests_total{route="/v1/send-event-email",method="POST",status="202"}"#, 2.0),
        (r#"emailer_http_requests_total{route="/v1/send-event-email",method="POST",status="422"}"#, 1.0),
        (r#"emailer_http_requests_total{route="/v1/jobs/{id}",method="GET",status="200"}"#, 1.0),
        (r#"emailer_http_requests_total{route="unknown",method="GET",status="404"}"#, 1.0),
        (r#"emailer_http_request_seconds_bucket{route="/v1/jobs/{id}",le="30"}"#, 1.0),
        (r#"emailer_http_request_seconds_count{route="/v1/send-event-email"}"#, 3.0),
        (r#"emailer_queue_oldest_seconds{priority="bulk"}"#, 0.0),
    ] {
        assert!(value(metrics, series) >= at_least, "{series}: {metrics}");
    }
    assert!(!metrics.contains(&id) && !metrics.contains("example.com"), "{metrics}");
}
