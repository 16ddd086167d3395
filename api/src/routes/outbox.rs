//! The messages that the outbox transport kept.

use actix_web::{HttpResponse, web};
use mail_parser::{Message, MessageParser, MimeHeaders};
use serde_json::{Value, json};
use shared::job::JobId;
use shared::queue::{KeptMessage, OUTBOX_MESSAGES};

use crate::Site;
use crate::problem::Problem;

pub(super) async fn list(site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let kept = site.deps.queue.kept(OUTBOX_MESSAGES).await?;
    let data: Vec<Value> = kept.iter().map(summary).collect();
    Ok(HttpResponse::Ok().json(json!({"data": data})))
}

pub(super) async fn show(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = JobId::parse(&id).map_err(|_| Problem::not_found())?;
    let kept = site.deps.queue.kept_message(id).await?.ok_or_else(Problem::not_found)?;
    let mut view = summary(&kept);
    if let Some(message) = MessageParser::new().parse(kept.source.as_bytes()) {
        let headers: Vec<Value> =
            message.headers_raw().map(|(name, value)| json!({"name": name, "value": value.trim()})).collect();
        let parts: Vec<Value> = message
            .parts
            .iter()
            .filter_map(|part| {
                let kind = part.content_type()?;
                let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default());
                Some(json!({"content_type": kind, "size": part.len()}))
            })
            .collect();
        view["headers"] = headers.into();
        view["parts"] = parts.into();
        view["text"] = json!(text(&message));
        view["html"] = json!(html(&message));
    }
    view["source"] = kept.source.into();
    Ok(HttpResponse::Ok().json(view))
}

fn summary(kept: &KeptMessage) -> Value {
    let message = MessageParser::new().parse_headers(kept.source.as_bytes());
    json!({
        "id": kept.job,
        "at": kept.at.to_string(),
        "from": kept.from,
        "to": kept.to,
        "subject": message.as_ref().and_then(Message::subject),
        "size": kept.source.len(),
    })
}

/// The plain part, where the message has one of its own.
pub(super) fn text(message: &Message<'_>) -> Option<String> {
    let part = message.text_part(0)?;
    part.is_text()
        .then(|| part.text_contents().map(ToOwned::to_owned))
        .flatten()
        .filter(|_| !part.is_text_html())
}

/// The HTML part.
pub(super) fn html(message: &Message<'_>) -> Option<String> {
    message.html_part(0).filter(|part| part.is_text_html())?.text_contents().map(ToOwned::to_owned)
}
