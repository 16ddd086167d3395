//! What every request passes: its id, the `Host` rule, its key, the metrics; and what every response gets.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use tokio::time::Instant;

use crate::problem::Problem;
use crate::{Site, auth, metrics};

/// Names a request in logs and errors: taken from `X-Request-Id`, or made.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken.
const ID_LIMIT: usize = 128;

pub(crate) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    // The pattern, not the path: a label must not carry ids.
    let route = request.match_pattern().unwrap_or_else(|| "unknown".into());
    let method = request.method().clone();
    let response = if let Err(problem) = admit(&request) {
        request.into_response(problem.response(&id))
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    // A handler's own problem does not know the request's id.
    let mut response = match response.response().error().and_then(|error| error.as_error::<Problem>()) {
        Some(problem) => {
            let problem = problem.response(&id);
            response.into_response(problem)
        }
        None => response,
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    metrics::answered(&route, &method, response.status().as_u16(), began.elapsed());
    Ok(response)
}

fn admit(request: &ServiceRequest) -> Result<(), Problem> {
    let Some(site) = request.app_data::<web::Data<Site>>() else {
        return Err(Problem::not_found());
    };
    let Some(scope) = auth::scope(request.method(), request.path()) else {
        return Ok(());
    };
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    site.keys.check_host(header(HOST).or_else(|| request.uri().host()).unwrap_or_default())?;
    let caller = site.keys.check(header(AUTHORIZATION), scope)?;
    request.extensions_mut().insert(caller);
    Ok(())
}

fn request_id(request: &ServiceRequest) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_sane =
        |id: &&str| !id.is_empty() && id.len() <= ID_LIMIT && id.bytes().all(|b| b.is_ascii_graphic());
    given.filter(is_sane).map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), ToOwned::to_owned)
}
