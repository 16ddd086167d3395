//! Errors as RFC 9457 problem details: one table from code to status and title.

mod fault;

use std::rc::Rc;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;

pub(crate) use fault::{Fault, Faults, Rule};

use crate::guard::RequestId;

macro_rules! codes {
    ($($variant:ident = $word:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong with a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code { $($variant),* }

        impl Code {
            const fn row(self) -> (&'static str, u16, &'static str) {
                match self { $(Self::$variant => ($word, $status, $title)),* }
            }
        }
    };
}

codes! {
    MalformedJson = "malformed_json", 400, "The body is not JSON";
    Unauthorized = "unauthorized", 401, "A valid API key is needed";
    Forbidden = "forbidden", 403, "Not allowed";
    SenderNotAllowed = "sender_not_allowed", 403, "The sender is not allowed";
    NotFound = "not_found", 404, "There is no such thing";
    MethodNotAllowed = "method_not_allowed", 405, "Not with this method";
    Conflict = "conflict", 409, "Not in this state";
    TooLarge = "too_large", 413, "The body is too large";
    UnsupportedMediaType = "unsupported_media_type", 415, "JSON is expected";
    InvalidRequest = "invalid_request", 422, "The request breaks a rule";
    IdempotencyKeyReuse = "idempotency_key_reuse", 422, "The idempotency key was used with another body";
    QueueFull = "queue_full", 503, "The queue is full";
    ScheduleFull = "schedule_full", 503, "The schedule is full";
    QueueUnavailable = "queue_unavailable", 503, "The queue cannot be reached";
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Faults::from(fault).into()
    }
}

impl From<Faults> for Problem {
    fn from(faults: Faults) -> Self {
        let errors = faults.into_vec();
        let detail = match errors.as_slice() {
            [one] => format!("{} {}", one.pointer, one.message).trim_start().to_owned(),
            many if many.len() < Faults::LIMIT => format!("{} rules are broken; see errors.", many.len()),
            many => format!("The first {} broken rules are in errors.", many.len()),
        };
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    errors: &'a [Fault],
}

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    retry_after: Option<u32>,
    allow: Option<String>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None, allow: None }
    }

    /// What the framework answers by itself, in our form.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(Code::TooLarge, "The request is too large."),
            _ if status.is_client_error() => Self::new(Code::MalformedJson, "The request could not be read."),
            _ => Self::new(Code::QueueUnavailable, "The request was not taken. Try again.").retry_after(2),
        }
    }

    /// With a number of seconds after which to try again.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing at this address.")
    }

    pub(crate) fn response(&self, request_id: &str) -> HttpResponse {
        let (code, status, title) = self.code.row();
        let body = Body {
            r#type: "about:blank",
            title,
            status,
            detail: &self.detail,
            code,
            request_id,
            errors: &self.errors,
        };
        let mut response =
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Some(methods) = &self.allow {
            response.insert_header((ALLOW, methods.as_str()));
        }
        if self.code == Code::Unauthorized {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_string(&body).unwrap_or_default())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

// The guard turns a handler's error into the response: only there the request's id is known.
impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.response("")
    }
}

impl From<shared::queue::Unavailable> for Problem {
    fn from(error: shared::queue::Unavailable) -> Self {
        tracing::warn!(%error, "the queue does not answer");
        Self::new(Code::QueueUnavailable, "The queue cannot be reached. Try again.").retry_after(2)
    }
}

fn request_id(request: &HttpRequest) -> Rc<str> {
    request.extensions().get::<RequestId>().map_or_else(|| "".into(), |id| Rc::clone(&id.0))
}

/// Answers what no route knows.
pub(crate) async fn not_found(request: HttpRequest) -> HttpResponse {
    Problem::not_found().response(&request_id(&request))
}

/// Answers a method that a route does not know.
pub(crate) fn method_not_allowed(allow: String) -> actix_web::Route {
    actix_web::web::to(move |request: HttpRequest| {
        let detail = format!("Allowed here: {allow}.");
        let problem = Problem { allow: Some(allow.clone()), ..Problem::new(Code::MethodNotAllowed, detail) };
        async move { problem.response(&request_id(&request)) }
    })
}
