//! Reading a body: JSON by its type, within `server.max_body`, and not slower than a pace that no honest client misses.

use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};

use crate::problem::{Code, Problem};

/// How long a body may take, whatever its length.
const GRACE: Duration = Duration::from_secs(30);

/// Octets that earn one more second.
const PACE: usize = 16 * 1024;

/// How much is set aside for a body before any of it has come: its announced length is only a claim.
const SET_ASIDE: usize = 64 * 1024;

/// How many times the allowed length is read and dropped, so that a client which sends too much gets to see why.
const DROPPED: usize = 4;

/// The body of a request that must be JSON, of at most `max` octets.
pub(crate) async fn read(request: &HttpRequest, payload: Payload, max: usize) -> Result<Bytes, Problem> {
    check_form(request)?;
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    let mut incoming = Incoming { payload, began: None, received: 0 };
    if announced.is_some_and(|length| length > max) {
        return Err(incoming.refuse(max).await);
    }
    let Some(first) = incoming.next().await? else { return Ok(Bytes::new()) };
    if announced == Some(first.len()) {
        return Ok(first);
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or_default().min(SET_ASIDE).max(first.len()));
    let mut chunk = Some(first);
    while let Some(some) = chunk {
        if incoming.received > max {
            return Err(incoming.refuse(max).await);
        }
        body.extend_from_slice(&some);
        chunk = incoming.next().await?;
    }
    Ok(body.freeze())
}

fn check_form(request: &HttpRequest) -> Result<(), Problem> {
    let kind = request.content_type();
    let is_json = kind.eq_ignore_ascii_case("application/json")
        || kind.get(kind.len().saturating_sub(5)..).is_some_and(|end| end.eq_ignore_ascii_case("+json"));
    if !is_json {
        let detail = "Content-Type: application/json is expected.";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let encoding = request.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let detail = "A body without Content-Encoding is expected.";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    Ok(())
}

/// A body that is coming.
struct Incoming {
    payload: Payload,
    /// When it was first waited for.
    began: Option<Instant>,
    received: usize,
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let chunk = if let Some(chunk) = self.payload.next().now_or_never() {
            chunk
        } else {
            let began = *self.began.get_or_insert_with(Instant::now);
            let late = |_| Problem::new(Code::MalformedJson, "The body did not come in time.");
            timeout_at(began + patience(self.received), self.payload.next()).await.map_err(late)?
        };
        let broken = |_| Problem::new(Code::MalformedJson, "The body could not be read.");
        let chunk = chunk.transpose().map_err(broken)?;
        self.received += chunk.as_ref().map_or(0, Bytes::len);
        Ok(chunk)
    }

    /// Drops the rest: a connection that is closed on a client which is still sending loses the answer, too.
    async fn refuse(mut self, max: usize) -> Problem {
        while self.received <= max.saturating_mul(DROPPED) {
            if !matches!(self.next().await, Ok(Some(_))) {
                break;
            }
        }
        Problem::new(Code::TooLarge, format!("At most {max} bytes are allowed (server.max_body)."))
    }
}

/// How long after its start a body may still be waited for, when this much of it has come.
fn patience(received: usize) -> Duration {
    GRACE + Duration::from_secs((received / PACE) as u64)
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::dev;
    use actix_web::error::PayloadError;
    use actix_web::test::TestRequest;
    use futures::stream::{self, Stream};

    use super::*;

    async fn read_stream<S>(body: S) -> Result<Bytes, Problem>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + 'static,
    {
        let request = TestRequest::default().insert_header(("content-type", "application/json"));
        let request = request.to_http_request();
        let mut incoming = dev::Payload::Stream { payload: Box::pin(body) as _ };
        let payload = Payload::from_request(&request, &mut incoming).await.unwrap();
        read(&request, payload, 1024 * 1024).await
    }

    fn pieces(count: usize, size: usize) -> impl Iterator<Item = Result<Bytes, PayloadError>> {
        (0..count).map(move |_| Ok(Bytes::from(vec![b' '; size])))
    }

    #[test]
    fn patience_grows_with_what_has_come() {
        assert_eq!(patience(0), GRACE);
        assert_eq!(patience(PACE - 1), GRACE);
        assert_eq!(patience(20 * 1024 * 1024), GRACE + Duration::from_secs(1_280));
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_stops_coming_is_given_up() {
        let began = Instant::now();
        let stopped = stream::iter(pieces(2, PACE)).chain(stream::pending());
        let problem = read_stream(stopped).await.unwrap_err();
        assert_eq!(problem.to_string(), "The body did not come in time.");
        assert_eq!(began.elapsed().as_secs(), GRACE.as_secs() + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_trickles_is_given_up_and_one_that_keeps_the_pace_is_not() {
        let every_second = |size| {
            stream::iter(pieces(60, size)).then(async |piece| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                piece
            })
        };
        assert!(read_stream(every_second(1)).await.is_err());
        assert_eq!(read_stream(every_second(PACE)).await.unwrap().len(), 60 * PACE);
    }

    #[tokio::test]
    async fn what_is_dropped_of_a_body_that_is_too_large_is_bounded() {
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[b' '; 4096])));
        let problem = read_stream(endless).await.unwrap_err();
        assert!(problem.to_string().contains("server.max_body"), "{problem}");
    }
}
