//! `lab`: what the scripts measure and break things with, as subcommands. All of it listens on the loopback only.

mod floor;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use lab::load::{self, Asked};
use lab::sink::Sink;
use lab::wire::{self, Wire};
use lab::{balance, chaos};
use serde_json::{Map, Value};
use tokio::runtime::Builder;

#[derive(Parser)]
#[command(about = "Measures mail software, and breaks what is around it")]
enum Lab {
    /// Puts load on the send route; prints one JSON line
    Load(Load),
    /// Takes mail and counts it
    Sink(Listen),
    /// Makes the way between two programs long, narrow or broken
    Wire(WireArgs),
    #[command(subcommand)]
    Floor(Floor),
    /// Breaks a running fleet in every way, and counts every mail; fails where a promise is broken
    Chaos(Chaos),
    /// Restarts two APIs behind a load balancer under load; fails where a request fails or a mail is lost
    Balance(BalanceArgs),
}

/// What nothing can beat
#[derive(Subcommand)]
enum Floor {
    /// The send route, if all it did were to parse
    Http {
        /// Port to listen on
        #[arg(long)]
        port: u16,
    },
    /// A job's life in a stream of Redis: added, read, acknowledged, deleted; prints one JSON line
    Redis(RedisFloor),
}

#[derive(Args)]
struct RedisFloor {
    /// Where Redis is: <redis://host:port>
    #[arg(long)]
    url: String,
    /// Jobs, at least
    #[arg(long, default_value_t = 50_000)]
    jobs: usize,
    /// Jobs that one loop moves at once
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    batch: usize,
    /// Loops at once, over one connection
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    loops: usize,
    /// A job's size in bytes
    #[arg(long, default_value_t = 2300)]
    size: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: std::num::NonZeroUsize = text.parse().map_err(|error| format!("{error}"))?;
    Ok(number.get())
}

#[derive(Args)]
struct Chaos {
    /// Chooses the faults; without: a new one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Workers
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Requests a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// When Redis writes to disk: every second (then it is restarted cleanly), or always (then it is killed)
    #[arg(long, value_enum, default_value = "everysec")]
    fsync: Fsync,
    /// The folder of emailer-api and emailer-worker
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// An empty folder for logs and Redis' files; without, they are removed at the end
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

#[derive(Args)]
struct BalanceArgs {
    /// Which balancer, with its configuration under deploy/
    #[arg(long, value_enum)]
    with: Front,
    /// The folder of emailer-api and emailer-worker
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Front {
    Nginx,
    Haproxy,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Fsync {
    Everysec,
    Always,
}

#[derive(Args)]
struct Listen {
    /// Port to listen on
    #[arg(long)]
    port: u16,
    /// Control port, HTTP: GET / tells what came or passed; more in the module's documentation
    #[arg(long)]
    control: u16,
}

#[derive(Args)]
struct WireArgs {
    #[command(flatten)]
    listen: Listen,
    /// Where to pass on to, as address:port
    #[arg(long)]
    to: SocketAddr,
    /// Milliseconds there and back
    #[arg(long, default_value_t = 0)]
    round_trip_ms: u64,
    /// Bytes a second in each direction of each connection
    #[arg(long)]
    bytes_per_second: Option<u64>,
}

#[derive(Args)]
struct Load {
    /// Where to: <http://host:port/path>
    #[arg(long)]
    url: String,
    /// API key
    #[arg(long)]
    key: Option<String>,
    /// Requests in flight at most
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Requests at most
    #[arg(long, required_unless_present = "seconds")]
    count: Option<u64>,
    /// For so long
    #[arg(long)]
    seconds: Option<f64>,
    /// Requests a second; without: as fast as answers come
    #[arg(long)]
    rate: Option<f64>,
    /// Recipients in each request
    #[arg(long, default_value_t = 1)]
    recipients: u64,
    /// The first recipient is b<ID>@example.com
    #[arg(long, default_value_t = 0, value_name = "ID")]
    first_id: u64,
    /// Bytes of HTML
    #[arg(long, default_value_t = 2048)]
    size: usize,
    /// Further fields of each request, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = fields, default_value = "{}")]
    fields: Map<String, Value>,
    /// Gives each request an Idempotency-Key
    #[arg(long)]
    idempotent: bool,
    /// Writes a line for each recipient: address, start in ns since 1970, status (0: no answer)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn fields(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_str(text)
}

fn main() -> anyhow::Result<()> {
    let lab = Lab::parse();
    // One thread: the cores belong to what is measured.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match lab {
        Lab::Load(args) => runtime.block_on(run_load(args)),
        Lab::Sink(listen) => runtime.block_on(run_sink(&listen)),
        Lab::Wire(args) => runtime.block_on(run_wire(&args)),
        Lab::Balance(args) => runtime.block_on(run_balance(&args)),
        Lab::Chaos(args) => runtime.block_on(run_chaos(args)),
        Lab::Floor(Floor::Redis(args)) => runtime.block_on(run_redis_floor(args)),
        // The API's own runtime: one worker a core, as the API itself has.
        Lab::Floor(Floor::Http { port }) => {
            actix_web::rt::System::new().block_on(floor::serve(loopback(port)))?;
            Ok(())
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

async fn run_sink(listen: &Listen) -> anyhow::Result<()> {
    let sink = Sink::start(loopback(listen.port)).await.context("--port")?;
    sink.serve_control(loopback(listen.control)).await.context("--control")
}

async fn run_wire(args: &WireArgs) -> anyhow::Result<()> {
    let plan = wire::Plan {
        round_trip: Duration::from_millis(args.round_trip_ms),
        bytes_per_second: args.bytes_per_second,
    };
    let wire = Wire::start(loopback(args.listen.port), args.to, plan).await.context("--port")?;
    wire.serve_control(loopback(args.listen.control)).await.context("--control")
}

async fn run_balance(args: &BalanceArgs) -> anyhow::Result<()> {
    let with = match args.with {
        Front::Nginx => balance::Balancer::Nginx,
        Front::Haproxy => balance::Balancer::Haproxy,
    };
    let outcome = balance::run(with, &args.programs, Path::new(".")).await?;
    writeln!(std::io::stdout(), "{with:?}: {outcome:?}")?;
    let balance::Outcome { accepted, failed, sent, doubled } = outcome;
    anyhow::ensure!(failed.is_empty(), "requests failed: {failed:?}");
    anyhow::ensure!(
        accepted > 0 && sent == accepted && doubled == 0,
        "{accepted} accepted, {sent} sent, {doubled} twice"
    );
    Ok(())
}

async fn run_chaos(args: Chaos) -> anyhow::Result<()> {
    let plan = chaos::Plan {
        seed: args.seed.unwrap_or_else(rand::random),
        time: Duration::from_secs(args.seconds),
        workers: args.workers,
        rate: args.rate,
        fsync: match args.fsync {
            Fsync::Everysec => chaos::Fsync::Everysec,
            Fsync::Always => chaos::Fsync::Always,
        },
        programs: args.programs,
        logs: args.logs,
    };
    let mut out = std::io::stdout();
    writeln!(out, "seed                  {}", plan.seed)?;
    let verdict = chaos::run(&plan).await?;
    writeln!(out, "{verdict}")?;
    let faults = verdict.faults();
    for fault in &faults {
        writeln!(out, "BROKEN  {fault}")?;
    }
    anyhow::ensure!(faults.is_empty(), "{} promises are broken, with seed {}", faults.len(), plan.seed);
    writeln!(out, "every promise was kept")?;
    Ok(())
}

async fn run_redis_floor(args: RedisFloor) -> anyhow::Result<()> {
    let RedisFloor { url, jobs, batch, loops, size } = args;
    let (jobs, time) = floor::Life { jobs, batch, loops, size }.run(&url).await.context("--url")?;
    let seconds = time.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count of jobs")]
    let report = serde_json::json!({"jobs": jobs, "seconds": seconds, "per_second": jobs as f64 / seconds});
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

async fn run_load(args: Load) -> anyhow::Result<()> {
    let plan = load::Plan {
        url: args.url,
        key: args.key,
        in_flight: args.in_flight,
        count: args.count,
        time: args.seconds.map(Duration::try_from_secs_f64).transpose().context("--seconds")?,
        rate: args.rate,
        recipients: args.recipients,
        first_id: args.first_id,
        body_size: args.size,
        fields: args.fields,
        idempotent: args.idempotent,
    };
    let (report, asked) = load::run(&plan).await?;
    if let Some(path) = &args.log {
        write_log(path, &asked).with_context(|| path.display().to_string())?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

fn write_log(path: &PathBuf, asked: &[Asked]) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for asked in asked {
        writeln!(file, "b{}@example.com {} {}", asked.id, asked.start_ns, asked.status)?;
    }
    file.flush()
}
