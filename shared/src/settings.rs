//! The settings: one struct, checked whole. Where they come from and what is wrong with them is in the
//! modules below; a value that reaches this struct is valid.

mod catalogue;
pub mod cli;
mod given;
mod parse;
mod read;
mod value;

pub use catalogue::readme_table;
pub use given::SettingsError;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::address::Mailbox;
use crate::queue::Limits;
use crate::retry::RetryPolicy;

/// Which program reads: what only the other one needs is not asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `emailer-api`.
    Api,
    /// `emailer-worker`.
    Worker,
}

/// Everything that a program can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `smtp.*`: the relay, which has the name `default`.
    pub smtp: Smtp,
    /// `mail.*`.
    pub mail: Mail,
    /// `server.*`.
    pub server: Server,
    /// `auth.*`.
    pub auth: Auth,
    /// `max_workers`: concurrent deliveries (busy connections) per worker process.
    pub max_workers: usize,
    /// `queue.type` and what belongs to it.
    pub queue: QueueSettings,
    /// `retry.*`.
    pub retry: RetryPolicy,
    /// `jobs.expire_after`.
    pub expire_after: Duration,
    /// `templates.*`.
    pub templates: Templates,
    /// `worker.*`: where the worker's health and metrics are served.
    pub worker: Listen,
    /// `shutdown.timeout`.
    pub shutdown_timeout: Duration,
    /// `log.*`.
    pub log: Log,
}

/// The relay.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name in metrics, records and logs: `default`.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login and password; both or none.
    pub credentials: Option<Credentials>,
    /// How the connection is protected.
    pub tls: Tls,
    /// PEM roots to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The name in EHLO; the host's name where none is set.
    pub helo_name: Option<String>,
    /// Open connections at most, per process.
    pub max_connections: usize,
    /// Messages on one connection at most.
    pub max_messages_per_connection: u32,
    /// Name lookup, TCP and TLS.
    pub connect_timeout: Duration,
    /// One command and its reply; the greeting too.
    pub command_timeout: Duration,
    /// The wait after the final dot.
    pub data_timeout: Duration,
    /// The longest pause between two probes of a relay that is down.
    pub probe_max: Duration,
}

/// A login.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Often the whole address.
    pub user: String,
    /// The password or authorisation code.
    pub pass: SecretString,
}

/// How a connection to a relay is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Port 465: as `Implicit`. Else STARTTLS where offered, and never a password in the clear except to a
    /// loopback address.
    Auto,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// STARTTLS, required (RFC 3207).
    Starttls,
    /// In the clear.
    None,
}

/// What is sent, and how.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The sender where a request names none.
    pub from: Mailbox,
    /// The domains that a request may send as.
    pub allowed_from: AllowedFrom,
    /// Where messages go.
    pub transport: TransportKind,
}

/// The domains that a request may send as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedFrom {
    /// `*`.
    Any,
    /// These, as A-labels in lower case.
    Domains(Vec<String>),
}

impl Settings {
    /// Where mail goes, in words.
    #[must_use]
    pub fn transport(&self) -> String {
        match self.mail.transport {
            TransportKind::Smtp => format!("{}:{}", self.smtp.host, self.smtp.port),
            TransportKind::Outbox => "outbox".into(),
        }
    }
}

impl Listen {
    /// Listens there.
    ///
    /// # Errors
    /// With the place in words.
    pub fn bind(&self) -> std::io::Result<TcpListener> {
        let (host, port) = (self.host.trim_matches(['[', ']']), self.port);
        let named =
            |error: std::io::Error| std::io::Error::new(error.kind(), format!("{host}:{port}: {error}"));
        TcpListener::bind((host, port)).map_err(named)
    }
}

impl Backend {
    /// The word in `queue.type`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis(_) => "redis",
        }
    }
}

impl AllowedFrom {
    /// Whether a request may send as this domain.
    #[must_use]
    pub fn allows(&self, domain: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Domains(domains) => domains.iter().any(|d| d == domain),
        }
    }
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// To the relay.
    Smtp,
    /// Into the outbox, to look at.
    Outbox,
}

/// Where the API listens and what it takes.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where.
    pub listen: Listen,
    /// The largest request body, in bytes.
    pub max_body: usize,
}

/// A place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Host name or address.
    pub host: String,
    /// TCP port; 0 takes a free one.
    pub port: u16,
}

/// Who may call.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The keys. None: only loopback, or `disabled`.
    pub keys: Vec<ApiKey>,
    /// Runs open on purpose.
    pub disabled: bool,
}

/// A key and what it may do.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its name in logs and for idempotency.
    pub name: String,
    /// The key.
    pub key: SecretString,
    /// What it may do; never empty.
    pub scopes: Vec<Scope>,
}

/// What a key may do. None implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `POST /v1/send-event-email`.
    Send,
    /// Every GET.
    Read,
    /// Everything else.
    Admin,
}

/// The queue.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// Which backend.
    pub backend: Backend,
    /// `queue.name`: the namespace of all keys, subjects and streams.
    pub name: String,
    /// How it is bounded.
    pub limits: Limits,
}

/// A backend and what it needs to know.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Inside the API's process.
    Memory,
    /// Redis or Valkey.
    Redis(Redis),
}

/// Redis: one server, several of a Cluster, or Sentinels.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `REDIS_URL`. Holds a password: never shown.
    pub url: SecretString,
    /// Runs on a Redis that may evict.
    pub allow_unsafe: bool,
}

/// Templates.
#[derive(Debug, Clone)]
pub struct Templates {
    /// The folder. None: the ones built in.
    pub dir: Option<PathBuf>,
    /// The end of the fallback chain.
    pub default_locale: String,
}

/// What is logged.
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}
