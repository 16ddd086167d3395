//! Every setting once: its names, its default, its meaning. `--help`, the README's table and what is suggested for a
//! misspelt name come from here.

use std::fmt::Write as _;

/// A setting that can be given.
#[derive(Debug)]
pub(super) struct Setting {
    /// The key in a file, dotted.
    pub(super) key: &'static str,
    /// The environment variable; also with `EMAIL_` in front.
    pub(super) env: &'static str,
    /// The default, in words; empty: none.
    pub(super) default: &'static str,
    /// What it is for.
    pub(super) meaning: &'static str,
    /// Whether its value is never shown; it can then be read from a file, too.
    pub(super) is_secret: bool,
}

const fn plain(
    key: &'static str,
    env: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { key, env, default, meaning, is_secret: false }
}

const fn secret(
    key: &'static str,
    env: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { key, env, default, meaning, is_secret: true }
}

pub(super) const SETTINGS: &[Setting] = &[
    plain("smtp.host", "SMTP_HOST", "smtp.qq.com", "the relay's host name or address"),
    plain("smtp.port", "SMTP_PORT", "587", "its port"),
    plain("smtp.user", "SMTP_USER", "", "login, often the whole address"),
    secret("smtp.pass", "SMTP_PASS", "", "password or authorisation code"),
    plain(
        "smtp.tls",
        "SMTP_TLS",
        "auto",
        "`auto` (465: implicit; else STARTTLS where offered, never a password in the clear except to a loopback address), `implicit`, `starttls` (required), `none`",
    ),
    plain("smtp.ca_file", "SMTP_CA_FILE", "", "PEM roots to trust in addition to the system's"),
    plain("smtp.helo_name", "SMTP_HELO_NAME", "host name", "the name in EHLO"),
    plain(
        "smtp.max_connections",
        "SMTP_MAX_CONNECTIONS",
        "= `max_workers`",
        "open connections per process, at most",
    ),
    plain(
        "smtp.max_messages_per_connection",
        "SMTP_MAX_MESSAGES_PER_CONNECTION",
        "100",
        "messages on one connection; then QUIT and a new one",
    ),
    plain("smtp.connect_timeout", "SMTP_CONNECT_TIMEOUT", "30s", "for name lookup, TCP and TLS"),
    plain("smtp.command_timeout", "SMTP_COMMAND_TIMEOUT", "60s", "for the greeting and for each command"),
    plain(
        "smtp.data_timeout",
        "SMTP_DATA_TIMEOUT",
        "10m",
        "for the answer to the final dot; a short one makes duplicates",
    ),
    plain(
        "smtp.probe_max",
        "SMTP_PROBE_MAX",
        "60s",
        "longest pause between two probes of a relay that is down",
    ),
    plain(
        "mail.from",
        "MAIL_FROM",
        "`smtp.user`, where that is an address",
        "default sender, `a@b.c` or `Name <a@b.c>`",
    ),
    plain(
        "mail.allowed_from",
        "MAIL_ALLOWED_FROM",
        "the default sender's domain",
        "domains that a request may send as, comma-separated; `*` for any",
    ),
    plain(
        "mail.transport",
        "MAIL_TRANSPORT",
        "smtp",
        "`smtp`, or `outbox`: keep messages (the newest 500, at most 64 MiB) to look at, send nothing",
    ),
    plain("server.host", "SERVER_HOST", "127.0.0.1", "where the API listens"),
    plain("server.port", "SERVER_PORT", "8080", "its port; 0 takes a free one"),
    plain("server.max_body", "SERVER_MAX_BODY", "20MiB", "larger requests get 413"),
    secret(
        "auth.api_keys",
        "API_KEYS",
        "",
        "`name:key[:scope+scope],…`, in a file also a list of `{name,key,scopes}`; scopes `send`, `read`, `admin`, without: `send`. No keys: only a loopback `server.host`, and only requests to a loopback name are answered, unless `auth.disabled`",
    ),
    plain("auth.disabled", "AUTH_DISABLED", "false", "run open on purpose"),
    plain(
        "max_workers",
        "MAX_WORKERS",
        "10",
        "concurrent deliveries per process, and, unless `smtp.max_connections` says less, connections",
    ),
    plain(
        "max_queue_size",
        "MAX_QUEUE_SIZE",
        "1000 with `memory`, 100000 with `redis`",
        "jobs queued, retrying, sending or held; a request that would pass it gets 503, a batch larger than it 422",
    ),
    plain("jobs.max_scheduled", "JOBS_MAX_SCHEDULED", "100000", "scheduled jobs count here instead"),
    plain(
        "queue.type",
        "QUEUE_TYPE",
        "memory",
        "`memory`: inside `emailer-api`, lost when it ends; `redis`: shared by any number of APIs and workers",
    ),
    plain("queue.name", "QUEUE_NAME", "emailer", "name of the queue"),
    plain("queue.lease", "QUEUE_LEASE", "60s", "a job held longer without renewal belongs to a dead worker"),
    plain(
        "queue.memory.buffer_size",
        "QUEUE_MEMORY_BUFFER_SIZE",
        "= `max_queue_size`",
        "the smaller of the two holds",
    ),
    secret(
        "queue.redis.url",
        "REDIS_URL",
        "redis://127.0.0.1:6379",
        "`redis://[user:password@]host[:port][/database]`, `rediss://` for TLS; several, comma-separated: a Cluster's nodes; `redis+sentinel://host:port,…/master`",
    ),
    plain("queue.redis.allow_unsafe", "REDIS_ALLOW_UNSAFE", "false", "run on a Redis that may evict"),
    plain("retry.max_retries", "RETRY_MAX_RETRIES", "3", "retries after the first attempt"),
    plain("retry.base_delay", "RETRY_BASE_DELAY", "1m", "delay before the first retry"),
    plain("retry.max_delay", "RETRY_MAX_DELAY", "30m", "longest delay, before jitter"),
    plain("retry.multiplier", "RETRY_MULTIPLIER", "2.0", "each delay is so many times the one before"),
    plain("retry.jitter", "RETRY_JITTER", "0.1", "share of the delay by which chance moves it"),
    plain(
        "jobs.expire_after",
        "JOBS_EXPIRE_AFTER",
        "24h",
        "not sent so long after acceptance, `send_at` or requeue: failed, `expired`; paused time does not count",
    ),
    plain("jobs.retention", "JOBS_RETENTION", "24h", "how long records of sent and cancelled jobs are kept"),
    plain(
        "jobs.failed_retention",
        "JOBS_FAILED_RETENTION",
        "7d",
        "the same for failed jobs, with their content",
    ),
    plain("jobs.retain", "JOBS_RETAIN", "100000", "how many ended jobs' records are kept, at most"),
    plain(
        "templates.dir",
        "TEMPLATES_DIR",
        "`shared/templates` where it exists, else the ones built in",
        "folder of templates",
    ),
    plain("templates.default_locale", "TEMPLATES_DEFAULT_LOCALE", "en", "end of the fallback chain"),
    plain("worker.host", "WORKER_HOST", "127.0.0.1", "where `emailer-worker` serves its health and metrics"),
    plain("worker.port", "WORKER_PORT", "9090", "its port"),
    plain("shutdown.timeout", "SHUTDOWN_TIMEOUT", "30s", "what work in flight gets to end in"),
    plain(
        "log.level",
        "LOG_LEVEL",
        "info",
        "`DEBUG`, `INFO`, `WARNING`, `ERROR` in any case, or a filter such as `worker=debug,info`",
    ),
    plain("log.format", "LOG_FORMAT", "text", "`text` or `json`"),
];

/// Settings whose feature is not built yet, by the start of their key and of their environment variable: refused, so
/// that nobody relies on them.
pub(super) const NOT_BUILT: &[(&str, &str)] = &[
    ("relays", "RELAYS"),
    ("smtp.rate_limit", "SMTP_RATE_LIMIT"),
    ("callback.", "CALLBACK_"),
    ("dkim.", "DKIM_"),
    ("otel.", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("queue.nats.", "NATS_URL"),
];

impl Setting {
    pub(super) fn by_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    pub(super) fn by_env(env: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.env == env)
    }
}

/// The name that is most like one that nobody knows, if any is much like it.
pub(super) fn nearest<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored =
        names.map(|name| (strsim::jaro_winkler(unknown, name), name)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// The settings as the README's table: Markdown, a row each.
#[must_use]
pub fn readme_table() -> String {
    let mut table = String::from("| file key | environment | default | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "–".to_owned(),
            words if words.contains([' ', '`']) => words.to_owned(),
            value => format!("`{value}`"),
        };
        let from_file = if setting.is_secret { format!(" or `{}_FILE`", setting.env) } else { String::new() };
        // Writing to a string cannot fail.
        writeln!(
            table,
            "| `{}` | `{}`{from_file} | {default} | {} |",
            setting.key, setting.env, setting.meaning
        )
        .unwrap_or_default();
    }
    table
}

/// The settings for `--help`.
pub(super) fn help() -> String {
    let mut help = String::from(
        "Settings come from environment variables, or from the file that CONFIG_FILE names (.yaml, .toml, .json).\n\
         In both cases EMAIL_<VARIABLE> overrides. Durations: 500ms, 30s, 1m, 24h, 7d. Sizes: 512KiB, 20MiB.\n\
         Under systemd, a secret that is not set is read from the credential emailer_<variable in lower case>.\n",
    );
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        let from_file = if setting.is_secret { format!(" (or {}_FILE)", setting.env) } else { String::new() };
        let text = format!("{}{default}", setting.meaning);
        writeln!(help, "\n  {}{from_file}  {}", setting.env, setting.key).unwrap_or_default();
        for line in wrap(&text, 90) {
            writeln!(help, "      {line}").unwrap_or_default();
        }
    }
    help
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let fits = lines
            .last()
            .is_some_and(|line| line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
