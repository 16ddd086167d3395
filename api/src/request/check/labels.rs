//! The rules of what a request gives its jobs along: tags and metadata.

use serde_json::{Map, Value};

use super::check_depth;
use crate::problem::{Faults, Rule};

/// Tags of one request, at most.
const TAGS: usize = 10;

/// Characters of a tag, at most.
const TAG: usize = 64;

/// Bytes of metadata, as JSON, at most.
const METADATA: usize = 4_096;

/// The tags as they are; what is wrong with them is among the faults.
pub(super) fn tags(tags: Vec<String>, faults: &mut Faults) -> Vec<String> {
    if tags.len() > TAGS {
        faults.add("/tags", Rule::TooMany, format!("at most {TAGS} tags are allowed"));
        return Vec::new();
    }
    for (n, tag) in tags.iter().enumerate() {
        let at = || format!("/tags/{n}");
        if tag.is_empty() {
            if !faults.names(&at()) {
                faults.add(at(), Rule::Required, "a tag of at least one character is expected");
            }
        } else if tag.chars().count() > TAG {
            faults.add(at(), Rule::TooLong, format!("at most {TAG} characters are allowed"));
        } else if tag.chars().any(char::is_control) {
            faults.add(at(), Rule::ControlCharacter, "a tag has no control characters");
        } else if tags.iter().take(n).any(|other| other == tag) {
            faults.add(at(), Rule::Duplicate, "the same tag is there twice");
        }
    }
    tags
}

/// The metadata as it is; what is wrong with it is among the faults.
pub(super) fn metadata(
    metadata: Option<Map<String, Value>>,
    faults: &mut Faults,
) -> Option<Map<String, Value>> {
    let metadata = metadata?;
    let size = serde_json::to_vec(&metadata).map_or(usize::MAX, |json| json.len());
    if size > METADATA {
        let message = format!("{size} bytes as JSON; at most {METADATA} are allowed");
        faults.add("/metadata", Rule::TooLong, message);
    }
    check_depth("/metadata", &metadata, faults);
    Some(metadata)
}
