//! Renders a batch before it is promised, so that what cannot be rendered is refused. Off the threads that serve
//! connections: 1,000 recipients take their time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use shared::job::Recipient;
use shared::template::{Compiled, RenderError};

use crate::Site;
use crate::problem::{Fault, Faults, Problem, Rule};

/// How many faults are told at most: the recipients of a batch tend to lack the same.
const FAULTS: usize = 20;

/// How long a request may keep a core busy: 1,000 renders of a template that a person reads take a tenth of it.
const BUDGET: Duration = Duration::from_secs(5);

/// A batch to be rendered.
pub(super) struct Job {
    pub(super) template: Arc<Compiled>,
    pub(super) subject: Option<String>,
    pub(super) data: Map<String, Value>,
    pub(super) recipients: Vec<Recipient>,
}

/// The recipients, when all of their messages render.
pub(super) async fn all(site: &Site, job: Job) -> Result<Vec<Recipient>, Problem> {
    let rendered = site.render(move || match render(&job) {
        faults if faults.is_empty() => Ok(job.recipients),
        faults => Err(faults),
    });
    Ok(rendered.await??)
}

/// Recipients without data of their own get the same: that is rendered once.
fn render(job: &Job) -> Faults {
    let mut faults = Faults::default();
    let mut found = 0;
    let mut shared_is_done = false;
    let begun = Instant::now();
    for (n, recipient) in job.recipients.iter().enumerate() {
        if begun.elapsed() > BUDGET {
            let message = format!("rendering all recipients takes longer than {} s", BUDGET.as_secs());
            faults.add("/template_id", Rule::InvalidValue, message);
            break;
        }
        if recipient.data.is_none() && std::mem::replace(&mut shared_is_done, true) {
            continue;
        }
        let rendered = job.template.render(job.subject.as_deref(), &job.data, recipient.data.as_ref());
        let Err(error) = rendered else { continue };
        let Fault { pointer, code, message } = fault(&error, recipient.data.as_ref().map(|_| n));
        faults.add(pointer, code, message);
        found += 1;
        if found == FAULTS {
            break;
        }
    }
    faults
}

/// `recipient`: whose own data was laid over the batch's.
fn fault(error: &RenderError, recipient: Option<usize>) -> Fault {
    let code = if error.undefined.is_some() { Rule::UndefinedVariable } else { Rule::InvalidValue };
    let pointer = match recipient {
        Some(n) => format!("/recipients/{n}/data"),
        None if error.undefined.is_none() && error.template == "subject" => "/subject".into(),
        None => "/template_data".into(),
    };
    Fault::new(pointer, code, error.to_string())
}
