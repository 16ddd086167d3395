//! What single decisions and texts cost: classifying a relay's answer, writing and reading what a batch stores:
//! `cargo bench -p shared`.
#![expect(clippy::unwrap_used, reason = "a measurement, run by hand")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shared::address::{Address, Mailbox};
use shared::classify::{Cause, Failure, classify};
use shared::message::{Body, Content, PlainPart};
use shared::reply::{Reply, Stage};

fn classifying(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    for (name, stage, code, text) in [
        ("greylisted", Stage::Rcpt, 451, "4.7.1 Greylisting in action, please come back later"),
        (
            "no such user",
            Stage::Rcpt,
            550,
            "5.1.1 <bob@example.com>: Recipient address rejected: User unknown",
        ),
        (
            "limit of QQ",
            Stage::Mail,
            550,
            "Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?id=20022",
        ),
        ("none of the table", Stage::Dot, 554, "5.6.0 Message contains something that we do not like"),
    ] {
        let cause = Cause::Reply(Reply::new(code, text));
        let failure = Failure { stage, cause, stale: false, detail: String::new() };
        group.bench_function(name, |bencher| bencher.iter(|| classify(black_box(&failure), false)));
    }
    group.finish();
}

fn storing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content");
    for size in [2 * 1024, 50 * 1024] {
        let row = "<p class=\"row\">Item 1: thank you for your order, it is on its way.</p>\n";
        let content = Content {
            from: Mailbox::new(Address::parse("sender@example.com").unwrap()),
            from_requested: false,
            reply_to: None,
            subject: Some("Your order has shipped".to_owned()),
            body: Body::Html(row.repeat(size / row.len())),
            text: PlainPart::Made,
            headers: Vec::new(),
        };
        let stored = serde_json::to_vec(&content).unwrap();
        group.throughput(Throughput::Bytes(stored.len() as u64));
        group.bench_function(format!("encode {size}"), |bencher| {
            bencher.iter(|| serde_json::to_vec(black_box(&content)).unwrap());
        });
        group.bench_function(format!("decode {size}"), |bencher| {
            bencher.iter(|| serde_json::from_slice::<Content>(black_box(&stored)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(pieces, classifying, storing);
criterion_main!(pieces);
