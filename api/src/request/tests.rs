use proptest::prelude::*;
use serde_json::{Map, Value, json};

use shared::clock::Timestamp;
use shared::message::PlainPart;

use super::draft::Draft;
use super::walk::walk;
use super::{WantedBody, check};

const FIELDS: [&str; 18] = [
    "subject",
    "recipients",
    "body",
    "template_id",
    "template_data",
    "locale",
    "text",
    "from",
    "reply_to",
    "headers",
    "send_at",
    "priority",
    "tags",
    "metadata",
    "on_ambiguous",
    "dry_run",
    "cc",
    "x",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z@.]{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["a@b.c"])),
        Just(json!({"X-A": "b"})),
    ]
}

/// Any value; often a list of one recipient with one odd member.
fn value() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["email", "name", "data", "other"]);
    let recipient = (name(), leaf()).prop_map(|(name, odd)| {
        let mut recipient = json!({"email": "a@b.c"});
        recipient[name] = odd;
        json!([recipient])
    });
    let nested = leaf().prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name().prop_map(String::from), inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop_oneof![2 => leaf(), 2 => recipient, 1 => nested]
}

/// A value of the field's type.
fn fitting(field: &str) -> Value {
    match field {
        "recipients" => json!(["a@b.c", {"email": "d@e.f", "name": "n", "data": {"a": 1}}]),
        "template_data" | "metadata" => json!({"a": [1, {"b": null}]}),
        "headers" => json!({"X-A": "b"}),
        "tags" => json!(["a"]),
        "dry_run" => true.into(),
        _ => "text".into(),
    }
}

/// A body whose members mostly fit, so that one that does not is often alone.
fn body() -> impl Strategy<Value = Map<String, Value>> {
    let member = (prop::sample::select(FIELDS.to_vec()), prop::option::weighted(0.3, value()));
    let member = member.prop_map(|(field, odd)| (field.to_owned(), odd.unwrap_or_else(|| fitting(field))));
    prop::collection::vec(member, 0..5).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn both_looks_at_a_body_agree(body in body()) {
        let text = serde_json::to_vec(&body).unwrap();
        let typed = serde_json::from_slice::<Draft>(&text);
        let (walked, faults) = walk(body.into());
        match typed {
            Ok(draft) => {
                prop_assert_eq!(faults.as_slice(), &[]);
                prop_assert_eq!(draft, walked);
            }
            Err(error) => prop_assert!(!faults.is_empty(), "only the types refuse it: {}", error),
        }
    }

    /// What would end a line of the message or a C string in somebody's code, anywhere but in the parts' own text.
    #[test]
    fn what_is_accepted_breaks_no_line(
        subject in text(), name in text(), header in text(), value in text(), from in text(), tag in text(),
    ) {
        let mail = json!({
            "subject": subject, "body": "<p>", "recipients": [{"email": "a@b.c", "name": name}],
            "headers": {header: value}, "from": format!("{from} <a@b.c>"), "tags": [tag],
        });
        let (draft, faults) = super::draft(&serde_json::to_vec(&mail).unwrap()).unwrap();
        if let Ok(wanted) = check(draft, faults, &|_, _| None, Timestamp::from_millis(0)) {
            let mut texts = vec![wanted.subject.unwrap()];
            texts.extend(wanted.headers.into_iter().flat_map(|(name, value)| [name, value]));
            texts.extend(wanted.recipients.into_iter().filter_map(|one| one.mailbox.name));
            texts.extend(wanted.from.and_then(|from| from.name));
            texts.extend(wanted.tags);
            for text in texts {
                prop_assert!(!text.contains(['\r', '\n', '\0']), "{:?}", text);
            }
        }
    }
}

/// Mostly harmless, so that much is accepted.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[A-Za-z-]{1,8}", 1 => "[a-z]{0,3}[\\x00-\\x1f\\x7f:]{1,2}[a-z]{0,3}", 1 => any::<String>()]
}

#[test]
fn text_is_made_left_out_or_given() {
    for (text, part) in [
        (Value::Null, PlainPart::Made),
        (json!(""), PlainPart::LeftOut),
        (json!("Hi"), PlainPart::Given("Hi".into())),
    ] {
        let mail = json!({"subject": "s", "body": "<p>", "recipients": ["a@b.c"], "text": text});
        let (draft, faults) = super::draft(&serde_json::to_vec(&mail).unwrap()).unwrap();
        let wanted = check(draft, faults, &|_, _| None, Timestamp::from_millis(0)).unwrap();
        assert_eq!(wanted.text, part);
        assert!(matches!(wanted.body, WantedBody::Html(html) if html == "<p>"));
    }
}
