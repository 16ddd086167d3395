//! Logins with the least rights, and TLS.

use std::process::Command;

use shared::queue::redis::{ConnectError, RedisQueue, access};
use shared::queue::{Control, Intake};

use crate::redis_queue::{accept_of_every_kind, deliver_in_every_way, order_everything};
use crate::redis_server::{Server, batch_of, connect, free_port, limits, try_connect};

async fn login(server: &Server, user: &str, rules: &str) -> RedisQueue {
    let mut words = vec!["ACL", "SETUSER", user, "on", ">secret"];
    words.extend(rules.split(' '));
    let _: String = server.run_command(&words).await;
    connect(&format!("redis://{user}:secret@127.0.0.1:{}", server.port), limits()).await
}

/// What was refused so far, without what the client library tries and can do without.
async fn refused(server: &Server) -> Vec<String> {
    let log: Vec<redis::Value> = server.run_command(&["ACL", "LOG"]).await;
    let all = log.iter().map(|entry| format!("{entry:?}"));
    all.filter(|entry| !entry.contains("client|setinfo")).collect()
}

#[tokio::test]
async fn each_program_works_with_the_rights_that_it_is_said_to_need() {
    let server = Server::start(&[]).await;
    let api = login(&server, "api", &access::api_rules("emailer")).await;
    let worker = login(&server, "worker", &access::worker_rules("emailer")).await;
    accept_of_every_kind(&api).await;
    deliver_in_every_way(&worker).await;
    order_everything(&api).await;
    assert_eq!(refused(&server).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_queued_where_transactions_are_not_allowed() {
    let server = Server::start(&[]).await;
    let anyone = connect(&server.url(), limits()).await;
    for missing in ["multi", "exec"] {
        let (all, rule) = (access::api_rules("emailer"), format!(" +{missing}"));
        assert!(all.contains(&rule), "{all}");
        let api = login(&server, missing, &all.replace(&rule, "")).await;
        let error = api.enqueue(batch_of(1)).await.unwrap_err().to_string();
        assert!(error.contains("`+multi` and `+exec`"), "{error}");
        assert_eq!(anyone.stats().await.unwrap().ledger.accepted, 0);
    }
}

#[tokio::test]
async fn no_right_is_listed_that_is_not_used() {
    let server = Server::start(&[]).await;
    let api = connect(&server.url(), limits()).await;
    accept_of_every_kind(&api).await;
    deliver_in_every_way(&api).await;
    order_everything(&api).await;
    let stats: String = server.run_command(&["INFO", "commandstats"]).await;
    let rules = [access::api_rules("emailer"), access::worker_rules("emailer")].join(" ");
    // Used where something is bounded or cleaned up after more than this life: the other tests go there.
    let rare = ["ltrim", "pexpire", "xgroup|delconsumer", "pexpireat", "persist"];
    for command in rules.split(' ').filter_map(|rule| rule.strip_prefix('+')) {
        let used = stats.contains(&format!("cmdstat_{command}:"));
        assert!(used || rare.contains(&command), "{command} is not used");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_without_the_password() {
    let server = Server::start(&[]).await;
    let _: String = server.run_command(&["CONFIG", "SET", "requirepass", "right"]).await;
    let error = try_connect(&format!("redis://:wrongsecret@127.0.0.1:{}", server.port), limits()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Unavailable(_)));
    assert!(!error.to_string().contains("wrongsecret"), "{error}");
    connect(&format!("redis://:right@127.0.0.1:{}", server.port), limits()).await;
}

/// The name of the test that runs in a process of its own: the roots to trust are read from the environment.
const INSIDE: &str = "EMAILER_TEST_TLS_URL";

#[tokio::test]
async fn a_server_behind_tls_is_reached_and_its_certificate_is_checked() {
    if let Ok(url) = std::env::var(INSIDE) {
        rustls::crypto::ring::default_provider().install_default().unwrap();
        let queue = connect(&url, limits()).await;
        crate::redis_topology::live_through_everything(&queue).await;
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path("cert"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    let other = rcgen::CertificateParams::new(vec!["other".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path("other"), other.pem()).unwrap();
    let port = free_port().to_string();
    let options = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &path("cert"),
        "--tls-key-file",
        &path("key"),
        "--tls-ca-cert-file",
        &path("cert"),
        "--tls-auth-clients",
        "no",
    ];
    let _server = Server::start(&options).await;
    for (roots, trusted) in [("cert", true), ("other", false)] {
        let name = "redis_access::a_server_behind_tls_is_reached_and_its_certificate_is_checked";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(INSIDE, format!("rediss://localhost:{port}"))
            .env("SSL_CERT_FILE", path(roots))
            .output()
            .unwrap();
        assert_eq!(output.status.success(), trusted, "{}", String::from_utf8_lossy(&output.stdout));
    }
}
