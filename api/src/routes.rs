//! The routes: one file per resource.
//!
//! Every route passes the [`guard`]; a resource answers HEAD where it answers GET (RFC 9110 §9.1), and 405 with `Allow`
//! to a method that it does not know.

mod batches;
mod health;
mod jobs;
mod outbox;
mod queue;
mod send;

use std::rc::Rc;

use actix_web::middleware::{Compress, from_fn};
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, Responder, Route};

use crate::auth::Access;
use crate::guard::{Guarded, guard};
use crate::metrics::RouteMeters;
use crate::problem;

/// Puts all routes into an application.
pub(crate) fn configure(app: &mut ServiceConfig) {
    use Access::{Open, Operating, Sending};
    resource(app, "/v1/send-event-email", Sending, Methods::post(send::send_event_email));
    resource(app, "/v1/jobs", Operating, Methods::get(jobs::list));
    resource(app, "/v1/jobs/{id}", Operating, Methods::get(jobs::show).and_patch(jobs::reschedule));
    resource(app, "/v1/jobs/{id}/cancel", Operating, Methods::post(jobs::cancel));
    resource(app, "/v1/jobs/{id}/requeue", Operating, Methods::post(jobs::requeue));
    resource(app, "/v1/batches/{id}", Operating, Methods::get(batches::show));
    resource(app, "/v1/batches/{id}/cancel", Operating, Methods::post(batches::cancel));
    resource(app, "/v1/queue", Operating, Methods::get(queue::show));
    resource(app, "/v1/queue/pause", Operating, Methods::post(queue::pause));
    resource(app, "/v1/queue/resume", Operating, Methods::post(queue::resume));
    resource(app, "/v1/outbox", Operating, Methods::get(outbox::list));
    resource(app, "/v1/outbox/{id}", Operating, Methods::get(outbox::show));
    resource(app, "/healthz", Open, Methods::get(health::healthz));
    resource(app, "/readyz", Open, Methods::get(health::readyz));
    resource(app, "/metrics", Open, Methods::get(health::metrics));
    let unknown = Guarded { access: Operating, meters: RouteMeters::new("unknown") };
    app.service(
        web::resource("{path:.*}")
            .app_data(Rc::new(unknown))
            .default_service(web::to(problem::not_found))
            .wrap(from_fn(guard)),
    );
}

fn resource(app: &mut ServiceConfig, pattern: &'static str, access: Access, methods: Methods) {
    let guarded = Guarded { access, meters: RouteMeters::new(pattern) };
    let mut resource = web::resource(pattern).app_data(Rc::new(guarded));
    for route in methods.routes {
        resource = resource.route(route);
    }
    let resource = resource.default_service(problem::method_not_allowed(methods.allow)).wrap(from_fn(guard));
    // What is read can be long, what is answered to an order is short: compressing that costs more than it saves.
    if methods.is_read {
        app.service(resource.wrap(Compress::default()));
    } else {
        app.service(resource);
    }
}

/// The methods of a resource.
struct Methods {
    allow: String,
    routes: Vec<Route>,
    is_read: bool,
}

impl Methods {
    fn get<F, Args>(handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let routes = vec![web::get().to(handler.clone()), web::head().to(handler)];
        Self { allow: "GET, HEAD".into(), routes, is_read: true }
    }

    fn post<F, Args>(handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        Self { allow: "POST".into(), routes: vec![web::post().to(handler)], is_read: false }
    }

    fn and_patch<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.push_str(", PATCH");
        self.routes.push(web::patch().to(handler));
        self
    }
}
