//! What reading and checking a request costs, without HTTP and without the queue: `cargo bench -p api --bench request`.

use std::hint::black_box;

use api::is_acceptable;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock};

fn request(recipients: usize, bytes: usize) -> Vec<u8> {
    let row = "<tr><td class=\"name\">Item</td><td>1</td></tr>\n";
    let recipients: Vec<Value> =
        (0..recipients).map(|n| json!({"email": format!("user{n}@example.com"), "name": "A B"})).collect();
    let body = row.repeat(bytes / row.len());
    json!({"subject": "Your order has shipped", "recipients": recipients, "body": body}).to_string().into()
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse and validate");
    let now = SystemClock.now();
    for (name, recipients, bytes) in [
        ("one recipient, 2 KB", 1, 2_048),
        ("one recipient, 50 KB", 1, 51_200),
        ("1,000 recipients", 1_000, 2_048),
    ] {
        let body = request(recipients, bytes);
        assert!(is_acceptable(&body, now), "{name} is refused");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| is_acceptable(black_box(&body), now)));
    }
    group.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
