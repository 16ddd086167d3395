//! Who may call, and what every answer has.

use reqwest::Method;

use crate::support::{App, plain};

#[tokio::test]
async fn key_is_needed_and_its_scopes_hold() {
    let app = App::start_with(&[("API_KEYS", "app:sendkey,ops:opskey:read+admin")]).await;
    let call = async |method: Method, path: &str, key: Option<&str>| {
        let mut request = app.request(method, path).json(&plain("a@b.c"));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        app.send(request).await
    };
    for (method, path, key, status) in [
        (Method::POST, "/v1/send-event-email", None, 401),
        (Method::POST, "/v1/send-event-email", Some("wrong"), 401),
        (Method::POST, "/v1/send-event-email", Some("sendkey"), 202),
        (Method::POST, "/v1/send-event-email", Some("opskey"), 403),
        (Method::GET, "/v1/queue", None, 401),
        (Method::GET, "/v1/queue", Some("sendkey"), 403),
        (Method::GET, "/v1/queue", Some("opskey"), 200),
        (Method::POST, "/v1/queue/pause", Some("sendkey"), 403),
        (Method::POST, "/v1/queue/pause", Some("opskey"), 200),
        (Method::GET, "/healthz", None, 200),
        (Method::GET, "/readyz", None, 200),
        (Method::GET, "/metrics", None, 200),
    ] {
        let answer = call(method.clone(), path, key).await;
        assert_eq!(answer.status, status, "{method} {path} {key:?}");
        if status == 401 {
            assert_eq!(
                (answer.problem().1, answer.headers["www-authenticate"].to_str().unwrap()),
                ("unauthorized", "Bearer")
            );
        }
    }
}

#[tokio::test]
async fn without_keys_only_a_loopback_host_is_answered() {
    let app = App::start().await;
    let answer = app.send(app.request(Method::GET, "/v1/queue").header("host", "evil.example.com")).await;
    assert_eq!(answer.problem(), (403, "forbidden", vec![]));
    let answer = app.send(app.request(Method::GET, "/metrics").header("host", "evil.example.com")).await;
    assert_eq!(answer.problem(), (403, "forbidden", vec![]));
    assert_eq!(app.get("/v1/queue").await.status, 200);
    let pause = |origin: &str| app.request(Method::POST, "/v1/queue/pause").header("origin", origin);
    assert_eq!(app.send(pause("https://evil.example.com")).await.problem(), (403, "forbidden", vec![]));
    assert_eq!(app.get("/v1/queue").await.body["paused"], false);
    assert_eq!(app.send(pause(&app.base)).await.status, 200);
    let open = App::start_with(&[("AUTH_DISABLED", "true")]).await;
    let request = open.request(Method::GET, "/v1/queue").header("host", "mail.example.com");
    assert_eq!(open.send(request).await.status, 200);
}

#[tokio::test]
async fn unknown_route_is_404_and_a_wrong_method_405() {
    let app = App::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/relays",
        "/v1/jobs/x/y/z",
        "/v1/callbacks",
        "/dashboard",
        "/v1/jobs/%FF",
        "/v1/queue/",
    ] {
        assert_eq!(app.get(path).await.problem(), (404, "not_found", vec![]), "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/send-event-email", "POST"),
        (Method::DELETE, "/v1/queue", "GET, HEAD"),
        (Method::PUT, "/v1/jobs/x", "GET, HEAD, PATCH"),
        (Method::GET, "/v1/queue/pause", "POST"),
        (Method::POST, "/healthz", "GET, HEAD"),
        (Method::OPTIONS, "/v1/send-event-email", "POST"),
    ] {
        let answer = app.send(app.request(method, path)).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed", vec![]), "{path}");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
}

#[tokio::test]
async fn request_id_is_taken_or_made_and_echoed() {
    let app = App::start().await;
    let with = |id: &str| app.request(Method::GET, "/v1/queue").header("X-Request-Id", id);
    assert_eq!(app.send(with("abc-123")).await.headers["x-request-id"], "abc-123");
    let long = "x".repeat(129);
    for odd in [long.as_str(), "a b"] {
        let made = app.send(with(odd)).await.headers["x-request-id"].clone();
        assert!(made != odd && made.len() == 32, "{made:?}");
    }
}

#[tokio::test]
async fn every_response_has_its_id_and_its_headers() {
    let app = App::start_with(&[("API_KEYS", "ops:opskey:read")]).await;
    for (method, path, status) in [
        (Method::GET, "/healthz", 200),
        (Method::GET, "/v1/queue", 401),
        (Method::POST, "/healthz", 405),
        (Method::GET, "/nowhere", 401),
        (Method::GET, "/v1/jobs/%FF", 401),
    ] {
        let answer = app.send(app.request(method, path).header("X-Request-Id", "abc")).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers["x-request-id"], "abc", "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let app = App::start().await;
    for path in ["/healthz", "/readyz", "/v1/queue", "/v1/jobs"] {
        let answer = app.send(app.request(Method::HEAD, path)).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &"".into()), "{path}");
    }
    assert_eq!(app.send(app.request(Method::HEAD, "/v1/jobs/x")).await.status, 404);
}

#[tokio::test]
async fn drain_ends_readiness_and_intake_but_not_liveness() {
    let app = App::start().await;
    assert_eq!(app.get("/readyz").await.body["durability"]["backend"], "memory");
    app.shutdown.stop();
    assert_eq!(app.get("/readyz").await.problem(), (503, "queue_unavailable", vec![]));
    assert_eq!(app.get("/healthz").await.status, 200);
    let answer = app.post_mail(&plain("a@example.com")).await;
    assert_eq!(answer.problem(), (503, "queue_unavailable", vec![]));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(app.ledger().await["accepted"], 0);
}
