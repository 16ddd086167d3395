//! What every request passes: its id, the `Host` rule, its key; and what every response gets: the id, its form where it
//! is an error, the headers, its place in the metrics.

use std::rc::Rc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use tokio::time::Instant;

use crate::Site;
use crate::auth::Access;
use crate::metrics::RouteMeters;
use crate::problem::Problem;

/// What the guard knows of a route: the route's data.
pub(crate) struct Guarded {
    pub(crate) access: Access,
    pub(crate) meters: RouteMeters,
}

/// Names a request in logs and errors: taken from `X-Request-Id`, or made.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) Rc<str>);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken.
const ID_LIMIT: usize = 128;

/// Headers of every response. What is answered is data: no browser is to guess at it, show it or keep it.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

pub(crate) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(Rc::clone(&id)));
    let route = request.app_data::<Rc<Guarded>>().map(Rc::clone);
    let method = request.method().clone();
    let mut response = match admit(&request, route.as_deref()) {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(problem) => request.into_response(problem.response(&id)),
    };
    // A handler's own problem does not know the request's id; an extractor's error has another form.
    if let Some(error) = response.response().error() {
        let problem = match error.as_error::<Problem>() {
            Some(problem) => problem.response(&id),
            None => Problem::of_status(response.status()).response(&id),
        };
        response = response.into_response(problem);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    if let Some(route) = route {
        let (status, time) = (response.status(), began.elapsed());
        route.meters.answered(&method, status, time);
        tracing::debug!(
            request.id = %id, %method, route = route.meters.pattern(), status = status.as_u16(), ?time, "answered"
        );
    }
    Ok(response)
}

fn admit(request: &ServiceRequest, route: Option<&Guarded>) -> Result<(), Problem> {
    let (Some(site), Some(route)) = (request.app_data::<web::Data<Site>>(), route) else {
        return Err(Problem::not_found());
    };
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = header(HOST).or_else(|| request.uri().host()).unwrap_or_default();
    site.keys.check_host(host, header(ORIGIN))?;
    if let Some(scope) = route.access.scope(request.method()) {
        let caller = site.keys.check(header(AUTHORIZATION), scope)?;
        request.extensions_mut().insert(caller);
    }
    Ok(())
}

fn request_id(request: &ServiceRequest) -> Rc<str> {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_sane =
        |id: &&str| !id.is_empty() && id.len() <= ID_LIMIT && id.bytes().all(|b| b.is_ascii_graphic());
    match given.filter(is_sane) {
        Some(id) => id.into(),
        None => (&*uuid::Uuid::now_v7().simple().encode_lower(&mut [0; 32])).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::error::ErrorBadRequest;
    use actix_web::http::header::CONTENT_TYPE;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use actix_web::{App, HttpResponse};
    use serde_json::Value;
    use shared::clock::SystemClock;
    use shared::queue::memory::MemoryQueue;
    use shared::settings::Settings;
    use shared::shutdown::Shutdown;
    use shared::template::TemplateStore;

    use super::*;
    use crate::Deps;

    fn site() -> web::Data<Site> {
        let env = [("MAIL_FROM".to_owned(), "noreply@example.com".to_owned())];
        let settings = Settings::load(shared::settings::Program::Api, env).unwrap();
        let clock = Arc::new(SystemClock);
        web::Data::new(Site::new(Deps {
            queue: Arc::new(MemoryQueue::new(settings.queue.limits.clone(), clock.clone())),
            settings: Arc::new(settings),
            templates: Arc::new(TemplateStore::open(None, "en").unwrap()),
            clock,
            shutdown: Shutdown::new(),
            metrics: shared::metrics::recorder().unwrap().handle(),
        }))
    }

    #[actix_web::test]
    async fn error_of_the_framework_gets_our_form() {
        let guarded = Guarded { access: Access::Open, meters: RouteMeters::new("/odd") };
        let odd = async || Err::<HttpResponse, Error>(ErrorBadRequest("secret of the framework"));
        let resource = web::resource("/odd").app_data(Rc::new(guarded)).get(odd).wrap(from_fn(guard));
        let app = init_service(App::new().app_data(site()).service(resource)).await;
        let request = TestRequest::get().uri("/odd").insert_header((HOST, "localhost"));
        let response = call_service(&app, request.insert_header((REQUEST_ID, "abc")).to_request()).await;
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        let body: Value = read_body_json(response).await;
        assert_eq!((&body["code"], &body["request_id"]), (&"malformed_json".into(), &"abc".into()));
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}
