//! What became of every mail, and whether that keeps the promises.

use std::collections::HashMap;
use std::fmt;

use anyhow::Context;
use serde_json::Value;

use super::faults::Faults;
use super::fleet::Fleet;
use super::traffic::{Asked, Samples};

/// What a run found.
pub struct Verdict {
    accepted: u64,
    ledger: Value,
    sent: u64,
    held: u64,
    failed: u64,
    /// Answered with 202, and neither at the sink nor held nor failed.
    lost: Vec<String>,
    /// Said to be sent, and not at the sink.
    imagined: Vec<String>,
    /// Mails that came again.
    doubled: u64,
    /// Of them, those that must not be sent twice.
    hold_doubled: Vec<String>,
    /// At the sink, and promised to nobody.
    unknown: u64,
    reclaims: u64,
    resends: u64,
    asked: Asked,
    samples: Samples,
    faults: Faults,
}

/// What the timeline of a job tells.
#[derive(Default)]
struct History {
    status: String,
    reclaims: u64,
    resends: u64,
}

impl Verdict {
    pub(super) async fn reach(
        fleet: &Fleet,
        asked: Asked,
        samples: Samples,
        faults: Faults,
    ) -> anyhow::Result<Self> {
        let mut arrived: HashMap<String, u64> = HashMap::new();
        for arrival in fleet.sink.arrivals() {
            let job = arrival.message_id.split('@').next().unwrap_or_default().to_owned();
            *arrived.entry(job).or_default() += 1;
        }
        let ledger = fleet.get("/v1/queue").await?["ledger"].clone();
        let count = |state: &str| ledger[state].as_u64().unwrap_or(u64::MAX);
        let mut verdict = Self {
            accepted: asked.jobs.len() as u64,
            sent: count("sent"),
            held: count("held"),
            failed: count("failed"),
            ledger: ledger.clone(),
            lost: Vec::new(),
            imagined: Vec::new(),
            doubled: arrived.values().map(|times| times - 1).sum(),
            hold_doubled: Vec::new(),
            unknown: arrived.keys().filter(|job| !asked.jobs.contains_key(*job)).count() as u64,
            reclaims: 0,
            resends: 0,
            asked,
            samples,
            faults,
        };
        let histories = histories(fleet).await?;
        for (job, is_hold) in &verdict.asked.jobs {
            let times = arrived.get(job).copied().unwrap_or(0);
            if *is_hold && times > 1 {
                verdict.hold_doubled.push(job.clone());
            }
            let Some(history) = histories.get(job) else {
                verdict.lost.push(format!("{job}: no record"));
                continue;
            };
            verdict.reclaims += history.reclaims;
            verdict.resends += history.resends;
            match (times, history.status.as_str()) {
                (0, "sent") => verdict.imagined.push(job.clone()),
                (0, "held" | "failed") | (1.., _) => {}
                (0, status) => verdict.lost.push(format!("{job}: {status}")),
            }
        }
        Ok(verdict)
    }

    /// What speaks against the run: broken promises, and what never came to be tried.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut must = |is_so: bool, what: String| {
            if !is_so {
                found.push(what);
            }
        };
        must(self.lost.is_empty(), format!("lost: {:?}", self.lost));
        must(self.imagined.is_empty(), format!("said to be sent, and never came: {:?}", self.imagined));
        must(self.hold_doubled.is_empty(), format!("to be held, and sent twice: {:?}", self.hold_doubled));
        let (doubled, bound) = (self.doubled, self.faults.may_be_doubled);
        must(doubled <= bound, format!("{doubled} came twice, at most {bound} may"));
        let outage = self.faults.doubled_by_outage;
        must(outage == 0, format!("{outage} came twice for an outage of Redis"));
        must(self.unknown == 0, format!("{} came that nobody was promised", self.unknown));
        must(
            self.samples.unbalanced.is_empty(),
            format!("the ledger did not balance: {:?}", self.samples.unbalanced.first()),
        );
        must(
            self.ledger["accepted"].as_u64() == Some(self.accepted),
            format!(
                "the ledger says {} were accepted, {} were answered 202",
                self.ledger["accepted"], self.accepted
            ),
        );
        must(self.failed == 0, format!("{} failed, and no relay refused any", self.failed));
        must(self.asked.refused.is_empty(), format!("refused: {:?}", self.asked.refused.first()));
        must(self.asked.given_up == 0, format!("{} requests were never answered", self.asked.given_up));
        for (count, what) in [
            (self.accepted, "was accepted"),
            (self.samples.read, "sample of the ledger was read"),
            (self.faults.kills_in_flight, "kill hit work in flight"),
            (self.reclaims, "job was taken over"),
            (self.resends, "mail was sent again"),
            (self.held, "job was held"),
        ] {
            must(count > 0, format!("no {what}: the run proves nothing"));
        }
        found
    }
}

/// All jobs, page by page.
async fn histories(fleet: &Fleet) -> anyhow::Result<HashMap<String, History>> {
    let mut all = HashMap::new();
    let mut after = String::new();
    loop {
        let page = fleet.get(&format!("/v1/jobs?limit=200{after}")).await?;
        for job in page["data"].as_array().context("data")? {
            let id = job["id"].as_str().context("id")?.to_owned();
            let mut history =
                History { status: job["status"].as_str().unwrap_or_default().into(), ..History::default() };
            for entry in job["timeline"].as_array().into_iter().flatten() {
                let detail = entry["detail"].as_str().unwrap_or_default();
                match entry["event"].as_str() {
                    Some("reclaimed") => history.reclaims += 1,
                    Some("retrying") if detail.contains("at dot") => history.resends += 1,
                    _ => {}
                }
            }
            all.insert(id, history);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.faults)?;
        writeln!(
            f,
            "samples of the ledger {} read, {} unanswered, {} did not balance",
            self.samples.read,
            self.samples.unanswered,
            self.samples.unbalanced.len()
        )?;
        writeln!(f, "accepted              {}", self.accepted)?;
        writeln!(f, "sent                  {}", self.sent)?;
        writeln!(f, "held                  {}", self.held)?;
        writeln!(f, "failed                {}", self.failed)?;
        writeln!(f, "lost                  {}", self.lost.len() + self.imagined.len())?;
        writeln!(f, "duplicated            {}, at most {} may be", self.doubled, self.faults.may_be_doubled)?;
        writeln!(f, "  by a long outage    {}", self.faults.doubled_by_outage)?;
        writeln!(f, "  to be held          {}", self.hold_doubled.len())?;
        writeln!(f, "taken over            {}", self.reclaims)?;
        write!(f, "sent again            {}", self.resends)
    }
}
