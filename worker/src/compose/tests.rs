use std::collections::BTreeMap;

use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;
use serde_json::json;
use shared::address::Mailbox;
use shared::clock::Timestamp;
use shared::job::{BatchId, JobId, OnAmbiguous, Priority, Recipient};
use shared::queue::Receipt;
use shared::template::Bundle;

use super::*;

fn delivery(content: Content, to: &str) -> Delivery {
    Delivery {
        job: JobId { batch: BatchId::parse("06k3trf1lvq2v5q9q0q0q0q0qg").unwrap(), index: 3 },
        receipt: Receipt(1, 0),
        recipient: Recipient { mailbox: Mailbox::parse(to).unwrap(), data: None },
        priority: Priority::Normal,
        attempt: 1,
        max_attempts: 4,
        reclaims: 0,
        marked: false,
        on_ambiguous: OnAmbiguous::Resend,
        accepted_at: Timestamp::parse("2026-11-24T09:00:00+08:00").unwrap(),
        send_at: None,
        content: Arc::new(content),
        bundle: None,
    }
}

fn content(subject: &str, html: &str) -> Content {
    Content {
        from: Mailbox::parse("通知 <noreply@example.com>").unwrap(),
        from_requested: false,
        reply_to: None,
        subject: Some(subject.into()),
        body: Body::Html(html.into()),
        text: PlainPart::Made,
        headers: Vec::new(),
    }
}

fn assert_goes_over_the_wire(letter: &Letter) {
    assert!(letter.source.ends_with("\r\n"));
    assert!(letter.smtputf8 || letter.source.is_ascii());
    for line in letter.source.split("\r\n") {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
    }
}

#[test]
fn chinese_mail_is_read_back_as_it_was_written() {
    let subject = "【重要】您的订单已发货，请注意查收。感谢您的支持与信任，祝您生活愉快！".repeat(3);
    let html = "<h1>你好，世界</h1><p>查看 <a href=\"https://example.com/订单\">订单</a></p>";
    let letter =
        Composer::default().compose(&delivery(content(&subject, html), "王伟 <wang@例子.中国>")).unwrap();
    assert_goes_over_the_wire(&letter);
    let message = MessageParser::new().parse(letter.source.as_bytes()).unwrap();
    assert_eq!(message.subject(), Some(subject.as_str()));
    let from = message.from().unwrap().first().unwrap();
    assert_eq!((from.name(), from.address()), (Some("通知"), Some("noreply@example.com")));
    assert_eq!(message.to().unwrap().first().unwrap().address(), Some("wang@xn--fsqu00a.xn--fiqs8s"));
    assert_eq!(message.message_id(), Some("06k3trf1lvq2v5q9q0q0q0q0qg-3@example.com"));
    assert_eq!(message.date().unwrap().to_rfc3339(), "2026-11-24T01:00:00Z");
    assert_eq!(message.body_html(0).as_deref().map(str::trim), Some(html));
    let plain = message.body_text(0).unwrap();
    assert!(plain.contains("你好，世界") && plain.contains("https://example.com/"), "{plain}");
    assert_eq!(message.root_part().content_type().unwrap().subtype(), Some("alternative"));
}

#[test]
fn same_delivery_gives_the_same_bytes() {
    let one = delivery(content("s", "<p>x</p>"), "a@b.c");
    let again = Delivery { attempt: 3, receipt: Receipt(9, 9), ..one.clone() };
    assert_eq!(Composer::default().compose(&one).unwrap(), Composer::default().compose(&again).unwrap());
}

#[test]
fn date_is_the_later_of_acceptance_and_send_at() {
    let mut later = delivery(content("s", "x"), "a@b.c");
    later.send_at = Some(Timestamp::parse("2026-12-01T00:00:00Z").unwrap());
    let letter = Composer::default().compose(&later).unwrap();
    assert!(letter.source.contains("Date: Tue, 1 Dec 2026 00:00:00 +0000\r\n"), "{}", letter.source);
}

#[test]
fn plain_part_is_made_given_or_left_out() {
    let compose = |text: PlainPart| {
        let content = Content { text, ..content("s", "<p>bold</p>") };
        Composer::default().compose(&delivery(content, "a@b.c")).unwrap()
    };
    for (text, expected) in [(PlainPart::Made, "bold"), (PlainPart::Given("given".into()), "given")] {
        let letter = compose(text);
        let message = MessageParser::new().parse(letter.source.as_bytes()).unwrap();
        assert_eq!(message.body_text(0).unwrap().trim(), expected);
    }
    let letter = compose(PlainPart::LeftOut);
    assert!(letter.source.contains("Content-Type: text/html") && !letter.source.contains("multipart"));
}

#[test]
fn only_an_address_beyond_ascii_asks_for_smtputf8() {
    let composer = Composer::default();
    assert!(!composer.compose(&delivery(content("主题", "正文"), "a@例子.中国")).unwrap().smtputf8);
    let letter = composer.compose(&delivery(content("s", "x"), "用户@例子.中国")).unwrap();
    assert!(letter.smtputf8 && letter.source.contains("用户@xn--fsqu00a.xn--fiqs8s"));
}

#[test]
fn template_is_rendered_from_its_bundle_with_the_recipients_data() {
    let sources = BTreeMap::from([("a.html".to_owned(), "<p>{{ name }} {{ n }}</p>".to_owned())]);
    let bundle = Bundle { template: "a.html".into(), sources };
    let mut one = delivery(content("Hi {{ name }}", ""), "a@b.c");
    let body = Body::Template { bundle: bundle.hash(), data: json!({"n": 1}).as_object().unwrap().clone() };
    one.content = Arc::new(Content { body, ..(*one.content).clone() });
    one.bundle = Some(Arc::new(bundle));
    let composer = Composer::default();
    let error = composer.compose(&one).unwrap_err();
    assert_eq!(
        (error.reason, error.message.contains("name is not defined")),
        (Reason::Render, true),
        "{error}"
    );
    one.recipient.data = Some(json!({"name": "Wei"}).as_object().unwrap().clone());
    let letter = composer.compose(&one).unwrap();
    let message = MessageParser::new().parse(letter.source.as_bytes()).unwrap();
    assert_eq!((message.subject(), message.body_html(0).unwrap().trim()), (Some("Hi Wei"), "<p>Wei 1</p>"));
}

#[test]
fn hostile_html_neither_hangs_nor_overflows() {
    for html in [
        "<div>".repeat(200_000),
        "<table><tr><td>".repeat(60_000),
        "<b".repeat(300_000),
        "&".repeat(1_000_000),
    ] {
        let letter = Composer::default().compose(&delivery(content("s", &html), "a@b.c")).unwrap();
        assert_goes_over_the_wire(&letter);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_value_adds_a_header_or_changes_on_the_way(
        subject in "[^\u{0}\r\n]{1,200}", name in "\\PC{0,80}", value in "[ -~\u{4e00}-\u{4e20}]{0,400}", html in ".{0,600}",
    ) {
        let mut content = content(&subject, &html);
        content.from = Mailbox::try_new(Some(&name), content.from.address.clone()).unwrap();
        content.headers = vec![("X-Campaign".into(), value.clone())];
        let letter = Composer::default().compose(&delivery(content, "a@b.c")).unwrap();
        assert_goes_over_the_wire(&letter);
        let message = MessageParser::new().parse(letter.source.as_bytes()).unwrap();
        let names: Vec<&str> = message.headers().iter().map(mail_parser::Header::name).collect();
        prop_assert_eq!(
            names,
            ["From", "To", "Date", "Message-ID", "Subject", "X-Campaign", "MIME-Version", "Content-Type"]
        );
        prop_assert_eq!(message.subject().unwrap_or_default().trim(), subject.trim());
        prop_assert_eq!(message.from().unwrap().first().unwrap().name().unwrap_or_default(), name.trim());
        let parser = MessageParser::default().header_text("X-Campaign");
        let other = parser.parse(letter.source.as_bytes()).unwrap();
        let header = other.header("X-Campaign").and_then(mail_parser::HeaderValue::as_text).unwrap_or_default();
        prop_assert_eq!(header.trim(), value.trim());
    }
}
