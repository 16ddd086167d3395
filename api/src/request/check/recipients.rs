//! The rules of recipients.

use std::collections::HashMap;

use shared::address::{Address, Mailbox};
use shared::job::Recipient;

use super::check_depth;
use crate::problem::{Faults, Rule};
use crate::request::draft::{DraftRecipient, RecipientObject};

/// Recipients of one request, at most.
const RECIPIENTS: usize = 1_000;

/// Characters of a display name, at most.
pub(super) const NAME: usize = 256;

/// As many as are without a fault.
pub(super) fn check(drafts: Option<Vec<DraftRecipient>>, faults: &mut Faults) -> Vec<Recipient> {
    let drafts = drafts.unwrap_or_default();
    if drafts.is_empty() && !faults.names("/recipients") {
        faults.add("/recipients", Rule::Required, "at least one recipient is expected");
    }
    if drafts.len() > RECIPIENTS {
        faults.add("/recipients", Rule::TooMany, format!("at most {RECIPIENTS} recipients are allowed"));
        return Vec::new();
    }
    let count = drafts.len();
    let mut recipients = Vec::with_capacity(count);
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(if count > 1 { count } else { 0 });
    for (n, draft) in drafts.into_iter().enumerate() {
        let Some(recipient) = one(n, draft, faults) else { continue };
        if count > 1
            && let Some(first) = seen.insert(recipient.mailbox.address.key(), n)
        {
            let message = format!("the same address as /recipients/{first}");
            faults.add(format!("/recipients/{n}"), Rule::Duplicate, message);
        }
        recipients.push(recipient);
    }
    recipients
}

fn one(n: usize, draft: DraftRecipient, faults: &mut Faults) -> Option<Recipient> {
    let (member, object) = match draft {
        DraftRecipient::Wrong => return None,
        DraftRecipient::Address(email) => ("", RecipientObject { email: Some(email), ..Default::default() }),
        DraftRecipient::Object(object) => ("/email", object),
    };
    let at = |member: &str| format!("/recipients/{n}{member}");
    let address = match object.email.as_deref().map(|email| Address::parse(email.trim())) {
        Some(Ok(address)) => Some(address),
        Some(Err(error)) => {
            faults.add(at(member), Rule::InvalidAddress, error.to_string());
            None
        }
        None => {
            faults.add(at(member), Rule::Required, "an address is expected");
            None
        }
    };
    if let Some(name) = &object.name {
        if name.len() > NAME && name.chars().count() > NAME {
            faults.add(at("/name"), Rule::TooLong, format!("at most {NAME} characters are allowed"));
        } else if name.chars().any(char::is_control) {
            faults.add(at("/name"), Rule::ControlCharacter, "a name has no control characters");
        }
    }
    if let Some(data) = &object.data {
        check_depth(&at("/data"), data, faults);
    }
    let mailbox = Mailbox::try_new(object.name.as_deref(), address?).ok()?;
    Some(Recipient { mailbox, data: object.data })
}
