use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::walk::walk;

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

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z@.]{0,8}".prop_map(Value::from),
        Just(json!(["a@b.c"])),
        Just(json!([{"email": "a@b.c", "name": "n", "data": {}}])),
        Just(json!({"X-A": "b"})),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let names =
            prop_oneof![Just("email"), Just("name"), Just("data"), Just("other")].prop_map(String::from);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn both_looks_at_a_body_agree(body in prop::collection::btree_map(prop::sample::select(FIELDS.to_vec()), value(), 0..5)) {
        let body: Map<String, Value> = body.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
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
}
