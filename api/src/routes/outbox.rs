//! The messages that the outbox transport kept.

use actix_web::{HttpResponse, web};
use mail_parser::{Message, MessageParser, MimeHeaders};
use serde_json::{Map, Value, json};
use shared::job::JobId;
use shared::queue::{KeptMessage, OUTBOX_MESSAGES};

use crate::Site;
use crate::problem::Problem;

pub(super) async fn list(site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let kept = site.deps.queue.kept(OUTBOX_MESSAGES).await?;
    let data: Vec<Value> = kept.iter().map(|kept| summary(kept).into()).collect();
    Ok(HttpResponse::Ok().json(json!({"data": data})))
}

pub(super) async fn show(site: web::Data<Site>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = JobId::parse(&id).map_err(|_| Problem::not_found())?;
    let kept = site.deps.queue.kept_message(id).await?.ok_or_else(Problem::not_found)?;
    let mut view = summary(&kept);
    view.append(&mut parsed(&kept.source));
    view.insert("source".into(), kept.source.into());
    Ok(HttpResponse::Ok().json(view))
}

fn summary(kept: &KeptMessage) -> Map<String, Value> {
    let message = MessageParser::new().parse_headers(kept.source.as_bytes());
    let subject = message.as_ref().and_then(Message::subject);
    Map::from_iter([
        ("id".into(), json!(kept.job)),
        ("at".into(), kept.at.to_string().into()),
        ("from".into(), kept.from.as_str().into()),
        ("to".into(), json!(kept.to)),
        ("subject".into(), json!(subject)),
        ("size".into(), kept.source.len().into()),
    ])
}

/// A message's parts, as a mail client reads them: `subject`, `headers` as they are in the source, `parts`, and the
/// `text` and `html` to be shown; null where there is none.
pub(super) fn parsed(source: &str) -> Map<String, Value> {
    let message = MessageParser::new().parse(source.as_bytes()).unwrap_or_default();
    let headers =
        message.headers_raw().map(|(name, value)| json!({"name": name, "value": value.trim()})).collect();
    let parts = message.parts.iter().filter_map(|part| {
        let kind = part.content_type()?;
        let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default());
        Some(json!({"content_type": kind, "filename": part.attachment_name(), "size": part.len()}))
    });
    Map::from_iter([
        ("subject".into(), json!(message.subject())),
        ("headers".into(), headers),
        ("parts".into(), parts.collect()),
        ("text".into(), json!(text(&message))),
        ("html".into(), json!(html(&message))),
    ])
}

/// The plain part, where the message has one of its own.
fn text<'a>(message: &'a Message<'_>) -> Option<&'a str> {
    message.text_part(0).filter(|part| part.is_text() && !part.is_text_html())?.text_contents()
}

/// The HTML part.
fn html<'a>(message: &'a Message<'_>) -> Option<&'a str> {
    message.html_part(0).filter(|part| part.is_text_html())?.text_contents()
}
