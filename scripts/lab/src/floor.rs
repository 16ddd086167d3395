//! What nothing built on the same parts can beat: the send route of this HTTP server, if all it did were to parse; and
//! a job's life in a stream of Redis, if a queue were nothing else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use futures::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{RedisResult, cmd, pipe};
use serde::Deserialize;

const STREAM: &str = "lab:floor";
const GROUP: &str = "floor";

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

/// A load on a stream of Redis.
pub(crate) struct Life {
    /// Jobs that live and die, at least.
    pub(crate) jobs: usize,
    /// How many are moved by one command, or by one round trip.
    pub(crate) batch: usize,
    /// Loops that do so at once, over one connection.
    pub(crate) loops: usize,
    /// A job's size in bytes.
    pub(crate) size: usize,
}

impl Life {
    /// Adds jobs to a stream, reads them for a group, acknowledges and deletes them: how many there were, and the time.
    pub(crate) async fn run(&self, url: &str) -> RedisResult<(usize, Duration)> {
        let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        pipe()
            .cmd("DEL")
            .arg(STREAM)
            .ignore()
            .cmd("XGROUP")
            .arg(&["CREATE", STREAM, GROUP, "0", "MKSTREAM"])
            .ignore()
            .query_async::<()>(&mut redis)
            .await?;
        let job = vec![b'x'; self.size];
        let begin = Instant::now();
        let moved = try_join_all((0..self.loops).map(|n| self.consume(redis.clone(), n, &job))).await?;
        Ok((moved.iter().sum(), begin.elapsed()))
    }

    /// One loop's share. What it reads may be another's jobs; there are always as many as it added.
    async fn consume(
        &self,
        mut redis: MultiplexedConnection,
        number: usize,
        job: &[u8],
    ) -> RedisResult<usize> {
        let share = self.jobs.div_ceil(self.loops);
        let mut moved = 0;
        while moved < share {
            let mut add = pipe();
            for _ in 0..self.batch {
                add.cmd("XADD").arg(STREAM).arg("*").arg("job").arg(job).ignore();
            }
            add.query_async::<()>(&mut redis).await?;
            let read: StreamReadReply = cmd("XREADGROUP")
                .arg(&["GROUP", GROUP])
                .arg(number)
                .arg("COUNT")
                .arg(self.batch)
                .arg(&["STREAMS", STREAM, ">"])
                .query_async(&mut redis)
                .await?;
            let ids: Vec<String> =
                read.keys.into_iter().flat_map(|stream| stream.ids).map(|entry| entry.id).collect();
            pipe()
                .cmd("XACK")
                .arg(&[STREAM, GROUP])
                .arg(&ids)
                .ignore()
                .cmd("XDEL")
                .arg(STREAM)
                .arg(&ids)
                .ignore()
                .query_async::<()>(&mut redis)
                .await?;
            moved += ids.len();
        }
        Ok(moved)
    }
}
