//! What the fleet knows of its relays, and the messages that the outbox transport keeps.

use std::time::Duration;

use async_trait::async_trait;

use super::channel::Repeat;
use super::record::read;
use super::scripts::{self, Call};
use super::{RedisQueue, millis, unreadable};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::queue::{
    ConsumerId, KeptMessage, OUTBOX_BYTES, OUTBOX_MESSAGES, Outbox, PauseCause, RelayBoard, RelayPause,
    Unavailable,
};
use crate::reply::LastReply;

/// The words in which a cause is stored.
const CAUSES: [(PauseCause, &str); 2] = [(PauseCause::Down, "down"), (PauseCause::Throttled, "throttled")];

/// Since, until, probes, cause, reply.
type PauseRow = (i64, i64, u32, String, String);

fn pause(row: &PauseRow) -> Result<RelayPause, Unavailable> {
    let cause = CAUSES.iter().find(|(_, word)| *word == row.3);
    Ok(RelayPause {
        since: Timestamp::from_millis(row.0),
        until: Timestamp::from_millis(row.1),
        probes: row.2,
        cause: cause.ok_or_else(|| unreadable("the cause of a relay's pause"))?.0,
        reply: read(&row.4)?,
    })
}

#[async_trait]
impl RelayBoard for RedisQueue {
    async fn relay_pause(&self, relay: &str) -> Result<Option<RelayPause>, Unavailable> {
        let call = Call::new(&scripts::RELAY_PAUSE, &self.keys).arg(relay);
        let row: Option<PauseRow> = self.api.call::<Vec<PauseRow>>(&call, Repeat::Once).await?.pop();
        row.as_ref().map(pause).transpose()
    }

    async fn pause_relay(
        &self,
        relay: &str,
        cause: PauseCause,
        for_how_long: Duration,
        probes: u32,
        reply: LastReply,
    ) -> Result<RelayPause, Unavailable> {
        let word = CAUSES.iter().find(|(c, _)| *c == cause).map_or("down", |(_, word)| word);
        let call = Call::new(&scripts::RELAY_PAUSE, &self.keys)
            .arg(relay)
            .arg(word)
            .arg(millis(for_how_long))
            .arg(probes)
            .arg(serde_json::to_string(&reply).map_err(unreadable)?);
        let row: Option<PauseRow> = self.api.call::<Vec<PauseRow>>(&call, Repeat::Once).await?.pop();
        pause(&row.ok_or_else(|| unreadable("a pause without an answer"))?)
    }

    async fn resume_relay(&self, relay: &str) -> Result<(), Unavailable> {
        let mut del = redis::cmd("DEL");
        del.arg(self.keys.relay(relay));
        self.api.command::<i64>(&del).await.map(drop)
    }

    async fn take_probe(&self, relay: &str, me: &ConsumerId, lease: Duration) -> Result<bool, Unavailable> {
        let call = Call::new(&scripts::TAKE_PROBE, &self.keys).arg(relay).arg(&*me.0).arg(millis(lease));
        Ok(self.api.call::<i64>(&call, Repeat::Once).await? == 1)
    }
}

#[async_trait]
impl Outbox for RedisQueue {
    async fn keep(&self, message: KeptMessage) -> Result<(), Unavailable> {
        let call = Call::new(&scripts::KEEP, &self.keys)
            .arg(message.job.to_string())
            .arg(serde_json::to_vec(&message).map_err(unreadable)?)
            .arg(message.source.len())
            .arg(OUTBOX_MESSAGES)
            .arg(OUTBOX_BYTES);
        self.bulk.call::<i64>(&call, Repeat::Once).await.map(drop)
    }

    async fn kept(&self, limit: usize) -> Result<Vec<KeptMessage>, Unavailable> {
        let Some(last) = limit.min(OUTBOX_MESSAGES).checked_sub(1) else {
            return Ok(Vec::new());
        };
        let mut newest = redis::cmd("ZREVRANGE");
        newest.arg(self.keys.outbox()).arg(0).arg(last);
        let ids: Vec<String> = self.api.command(&newest).await?;
        let mut kept = Vec::with_capacity(ids.len());
        for id in ids {
            // One that was dropped since is left out.
            kept.extend(self.kept_message(id.parse().map_err(unreadable)?).await?);
        }
        Ok(kept)
    }

    async fn kept_message(&self, job: JobId) -> Result<Option<KeptMessage>, Unavailable> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.kept_message(job)).arg("message");
        let text: Option<String> = self.bulk.command(&get).await?;
        text.as_deref().map(read).transpose()
    }
}
