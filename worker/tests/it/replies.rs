//! Replies as servers really send them.

use lab::relay::{Form, Login, Script};
use shared::classify::{Cause, Meaning};
use shared::reply::Stage;

use crate::support::{connected, letter, login, meaning, open, place, refused, relay, send, smtp};

fn forms() -> [(&'static str, Form); 5] {
    let form = Form::default();
    [
        ("bare LF", Form { bare_lf: true, ..form }),
        ("codes alone", Form { code_only: true, ..form }),
        ("GBK", Form { gbk: true, ..form }),
        ("bytes", Form { one_byte: true, ..form }),
        ("lower case", Form { lowercase: true, ..form }),
    ]
}

#[tokio::test]
async fn irregular_replies_do_not_stop_a_login_or_a_message() {
    for (name, form) in forms() {
        for mechanisms in ["PLAIN LOGIN", "LOGIN"] {
            let relay = relay(Script {
                form,
                login: Some(Login {
                    mechanisms: mechanisms.into(), ..Login::new("me@example.com", "秘密")
                }),
                ..Script::default()
            })
            .await;
            let mut smtp = smtp(&relay);
            smtp.credentials = login("me@example.com", "秘密");
            let mut connection = open(smtp).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
            send(&mut connection, &letter("bob")).await.unwrap();
            assert_eq!(relay.journal()[0].login.as_deref(), Some("me@example.com"), "{name}");
            assert_eq!(relay.counts().largest_group, 3, "{name}: PIPELINING was overheard");
        }
    }
}

#[tokio::test]
async fn refusals_are_read_in_every_form() {
    for (name, form) in forms() {
        let (_relay, mut connection) = connected(Script { form, ..Script::default() }).await;
        let failure = refused(&mut connection, "rcpt-550-x").await;
        assert_eq!(place(&failure), (Stage::Rcpt, Some(550)), "{name}");
        assert!(connection.is_usable(), "{name}");
        let failure = refused(&mut connection, "dot-451-x").await;
        assert_eq!(place(&failure), (Stage::Dot, Some(451)), "{name}");
        send(&mut connection, &letter("bob")).await.unwrap();
    }
}

#[tokio::test]
async fn chinese_refusal_of_a_login_is_no_network_error() {
    for gbk in [true, false] {
        let relay = relay(Script {
            form: Form { gbk, ..Form::default() },
            login: Some(Login::new("me@qq.com", "right")),
            login_refusal: "535 Error: 请使用授权码登录".into(),
            ..Script::default()
        })
        .await;
        let mut smtp = smtp(&relay);
        smtp.credentials = login("me@qq.com", "wrong");
        let failure = open(smtp).await.unwrap_err();
        assert_eq!(place(&failure), (Stage::Auth, Some(535)));
        assert_eq!(failure.last_reply().text, "Error: 请使用授权码登录");
        assert_eq!(meaning(&failure), Meaning::RelayDown);
        assert_eq!(relay.counts().of("AUTH"), 1, "a 535 is not tried again");
    }
}

#[tokio::test]
async fn code_beyond_the_grammar_is_still_a_reply() {
    // lettre's own parser takes a second digit up to five.
    let (_relay, mut connection) = connected(Script {
        texts: vec![("odd".into(), "571 5.7.1 Not welcome\nhere".into())],
        ..Script::default()
    })
    .await;
    let failure = refused(&mut connection, "text-odd-x").await;
    assert_eq!(place(&failure), (Stage::Rcpt, Some(571)));
    assert!(connection.is_usable());
    for n in 0..3 {
        send(&mut connection, &letter(&format!("u{n}"))).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_reply_ends_the_connection() {
    let (_relay, mut connection) = connected(Script::default()).await;
    let failure = refused(&mut connection, "garble").await;
    assert_eq!((failure.stage, &failure.cause), (Stage::Dot, &Cause::Garbled));
    assert_eq!(meaning(&failure), Meaning::Ambiguous);
    assert!(!connection.is_usable());
}
