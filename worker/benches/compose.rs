//! What a mail costs before it is sent: its template's rendering, its plain part, its message:
//! `cargo bench -p worker`.
#![expect(clippy::unwrap_used, reason = "a measurement, run by hand")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use shared::address::Mailbox;
use shared::clock::Timestamp;
use shared::job::{BatchId, JobId, OnAmbiguous, Priority, Recipient};
use shared::message::{Body, Content, PlainPart};
use shared::queue::{Delivery, Receipt};
use shared::template::{Bundle, Compiled};
use worker::compose::{Composer, plain};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn benches(criterion: &mut Criterion) {
    plain_part(criterion);
    render(criterion);
    build(criterion);
}

/// The HTML that the load generator of `scripts/bench` sends.
fn notice(size: usize) -> String {
    let mut html = String::from("<html><body>\n<h1>Your order has shipped</h1>\n");
    for item in 1.. {
        if html.len() >= size {
            break;
        }
        writeln!(html, "<p class=\"row\">Item {item}: thank you for your order, it is on its way.</p>")
            .unwrap();
    }
    html + "</body></html>\n"
}

/// A newsletter as the editors make them: a preheader, nested tables, a style on every cell, links, images, Chinese.
fn newsletter(size: usize) -> String {
    let mut html = String::from(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>News</title>\
         <style>td { font-family: Arial, sans-serif; } a > b { color: red }</style></head>\
         <body style=\"margin:0\"><div style=\"display:none;max-height:0;overflow:hidden\">What is new&nbsp;&zwnj;</div>\n",
    );
    for item in 1.. {
        if html.len() >= size {
            break;
        }
        writeln!(
            html,
            "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\"><tr>\n\
             <td align=\"center\" style=\"padding:24px 12px;background-color:#f4f4f4\">\n\
             <a href=\"https://shop.example.com/item/{item}?utm_source=mail&amp;utm_medium=news\" target=\"_blank\">\
             <img src=\"https://cdn.example.com/{item}.png\" width=\"280\" alt=\"Item {item}\" style=\"display:block\"></a></td>\n\
             <td style=\"padding:12px;font-size:14px;line-height:20px;color:#333333\">\n\
             <h2 style=\"margin:0 0 8px\">Item {item} &mdash; 新品上市</h2>\n\
             <p style=\"margin:0\">It keeps coffee <b>hot</b> for six hours, and weighs less than an apple. 限时优惠，今晚截止。</p>\n\
             <ul><li>Steel &amp; cork</li><li>0.4&nbsp;l</li></ul>\n\
             <a href=\"https://shop.example.com/item/{item}\" style=\"color:#ffffff;text-decoration:none\">Read more</a></td></tr></table>"
        )
        .unwrap();
    }
    html + "</body></html>\n"
}

fn plain_part(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plain");
    for (name, html) in [("2 KB notice", notice(2048)), ("50 KB newsletter", newsletter(50 * 1024))] {
        group.throughput(Throughput::Bytes(html.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| plain::from_html(black_box(&html))));
    }
}

fn render(criterion: &mut Criterion) {
    let source = "<html><body><h1>Hello {{ name }}</h1>{% for item in items %}<p class=\"row\">{{ item.name }}: \
                  {{ item.count }} of them, thank you for your order, it is on its way.</p>{% endfor %}</body></html>";
    let sources = BTreeMap::from([("order.html".to_owned(), source.to_owned())]);
    let bundle = Bundle { template: "order.html".into(), sources };
    let compiled = Compiled::try_new(Arc::new(bundle)).unwrap();
    let items: Vec<_> = (0..20).map(|n| json!({"name": format!("Item <{n}>"), "count": n})).collect();
    let data = json!({ "items": items }).as_object().unwrap().clone();
    let recipient = json!({"name": "Wei"}).as_object().unwrap().clone();
    criterion.bench_function("render/2 KB template", |bench| {
        bench.iter(|| compiled.render(Some("Hi {{ name }}"), black_box(&data), Some(&recipient)).unwrap());
    });
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    for (name, text) in [("plain part made", PlainPart::Made), ("plain part left out", PlainPart::LeftOut)] {
        // No other holds the content: the composer keeps nothing of it, and begins anew each time.
        let delivery = delivery(text);
        let composer = Composer::default();
        group.bench_function(format!("2 KB notice, {name}"), |bench| {
            bench.iter(|| composer.compose(black_box(&delivery)).unwrap());
        });
    }
    let delivery = delivery(PlainPart::Made);
    let _others = [Arc::clone(&delivery.content), Arc::clone(&delivery.content)];
    let composer = Composer::default();
    group.bench_function("2 KB notice, plain part kept from the batch", |bench| {
        bench.iter(|| composer.compose(black_box(&delivery)).unwrap());
    });
}

fn delivery(text: PlainPart) -> Delivery {
    let content = Content {
        from: Mailbox::parse("Shop <noreply@example.com>").unwrap(),
        from_requested: false,
        reply_to: None,
        subject: Some("Your order has shipped".into()),
        body: Body::Html(notice(2048)),
        text,
        headers: Vec::new(),
    };
    Delivery {
        job: JobId { batch: BatchId::parse("06k3trf1lvq2v5q9q0q0q0q0qg").unwrap(), index: 3 },
        receipt: Receipt(1, 0),
        recipient: Recipient { mailbox: Mailbox::parse("wang.wei@example.com").unwrap(), data: None },
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

criterion_group!(all, benches);
criterion_main!(all);
