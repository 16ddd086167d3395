//! `Idempotency-Key`: a repeated request is answered as it was the first time.
//!
//! The queue records the key in the step that queues the batch; here it is read, and a request that would be refused
//! today is looked up.

use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use shared::queue::{EnqueueError, Idempotency};

use super::answer;
use crate::Site;
use crate::auth::Caller;
use crate::problem::{Fault, Problem, Rule};
use crate::request;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long a key is remembered after acceptance or `send_at`.
const KEPT: Duration = Duration::from_hours(24);

/// Characters of a key, at most.
const KEY_LIMIT: usize = 256;

/// The key of a request, of its caller, for its body.
pub(super) fn parse(
    request: &HttpRequest,
    caller: &Caller,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let mut given = request.headers().get_all(KEY);
    let Some(key) = given.next() else { return Ok(None) };
    let key = key.as_bytes();
    let is_sane = (1..=KEY_LIMIT).contains(&key.len()) && key.iter().all(|b| (b' '..=b'~').contains(b));
    if !is_sane || given.next().is_some() {
        let message = format!("one key of 1 to {KEY_LIMIT} printable ASCII characters is expected");
        return Err(Fault::new("Idempotency-Key:", Rule::InvalidValue, message).into());
    }
    let mut digest = Sha256::new();
    // The length parts name and key: no other pair gives the same digest.
    digest.update((caller.0.len() as u64).to_be_bytes());
    digest.update(caller.0.as_bytes());
    digest.update(key);
    let (key, fingerprint) = (HEXLOWER.encode(&digest.finalize()), HEXLOWER.encode(&Sha256::digest(body)));
    Ok(Some(Idempotency { key, fingerprint, keep: KEPT }))
}

/// What was answered to this key and body before.
pub(super) async fn replay(
    site: &Site,
    key: &Idempotency,
    body: &[u8],
) -> Result<Option<HttpResponse>, Problem> {
    match site.deps.queue.replay(key).await {
        Ok(Some(accepted)) => {
            Ok(request::recipients(body).map(|addresses| answer::accepted(accepted, &addresses)))
        }
        // A body that breaks a rule is told its rules first.
        Ok(None) | Err(EnqueueError::KeyReuse) => Ok(None),
        Err(error) => Err(answer::refused(&error, true)),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn key_of(caller: &str, key: &str) -> Idempotency {
        let request = TestRequest::default().insert_header((KEY, key)).to_http_request();
        parse(&request, &Caller(caller.into()), b"{}").unwrap().unwrap()
    }

    #[test]
    fn key_is_of_its_caller() {
        assert_eq!(key_of("app", "1"), key_of("app", "1"));
        assert_ne!(key_of("app", "1").key, key_of("shop", "1").key);
        assert_ne!(key_of("ap", "p1").key, key_of("app", "1").key);
    }

    #[test]
    fn digests_are_in_lower_case_hex() {
        assert_eq!(HEXLOWER.encode(&[0, 0xa5, 0xff]), "00a5ff");
        assert_eq!(
            key_of("", "1").fingerprint,
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }
}
