//! The routes: one file per resource.

mod batches;
mod health;
mod jobs;
mod outbox;
mod queue;
mod send;

use actix_web::web::{self, ServiceConfig};

use crate::problem::method_not_allowed;

/// Puts all routes into an application. A resource answers 405 to a method that it does not know.
pub(crate) fn configure(app: &mut ServiceConfig) {
    let get = || method_not_allowed("GET");
    let post = || method_not_allowed("POST");
    app.service(
        web::resource("/v1/send-event-email")
            .route(web::post().to(send::send_event_email))
            .default_service(post()),
    )
    .service(web::resource("/v1/jobs").route(web::get().to(jobs::list)).default_service(get()))
    .service(
        web::resource("/v1/jobs/{id}")
            .route(web::get().to(jobs::show))
            .route(web::patch().to(jobs::reschedule))
            .default_service(method_not_allowed("GET, PATCH")),
    )
    .service(
        web::resource("/v1/jobs/{id}/cancel").route(web::post().to(jobs::cancel)).default_service(post()),
    )
    .service(
        web::resource("/v1/jobs/{id}/requeue").route(web::post().to(jobs::requeue)).default_service(post()),
    )
    .service(web::resource("/v1/batches/{id}").route(web::get().to(batches::show)).default_service(get()))
    .service(
        web::resource("/v1/batches/{id}/cancel")
            .route(web::post().to(batches::cancel))
            .default_service(post()),
    )
    .service(web::resource("/v1/queue").route(web::get().to(queue::show)).default_service(get()))
    .service(web::resource("/v1/queue/pause").route(web::post().to(queue::pause)).default_service(post()))
    .service(web::resource("/v1/queue/resume").route(web::post().to(queue::resume)).default_service(post()))
    .service(web::resource("/v1/outbox").route(web::get().to(outbox::list)).default_service(get()))
    .service(web::resource("/v1/outbox/{id}").route(web::get().to(outbox::show)).default_service(get()))
    .service(web::resource("/healthz").route(web::get().to(health::healthz)).default_service(get()))
    .service(web::resource("/readyz").route(web::get().to(health::readyz)).default_service(get()))
    .service(web::resource("/metrics").route(web::get().to(health::metrics)).default_service(get()));
}
