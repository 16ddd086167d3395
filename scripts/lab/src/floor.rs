//! What no API on this HTTP server can beat: the send route, if all it did were to parse.

use std::net::SocketAddr;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::Deserialize;

#[derive(Deserialize)]
struct Send {
    subject: String,
    recipients: Vec<String>,
    body: String,
}

async fn send(send: web::Json<Send>) -> HttpResponse {
    if send.subject.is_empty() || send.body.is_empty() {
        return HttpResponse::UnprocessableEntity().finish();
    }
    HttpResponse::Accepted().content_type("application/json").body(format!(
        "{{\"message\":\"Jobs accepted for processing.\",\"count\":{}}}",
        send.recipients.len()
    ))
}

/// Serves until the process ends.
pub(crate) async fn serve(addr: SocketAddr) -> std::io::Result<()> {
    HttpServer::new(|| App::new().route("/v1/send-event-email", web::post().to(send))).bind(addr)?.run().await
}
