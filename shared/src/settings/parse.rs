//! From what was given to [`Settings`]: each value, then what they must be together.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::read::Reader;
use super::{
    AllowedFrom, ApiKey, Auth, Backend, Credentials, Listen, Log, LogFormat, Mail, Program, QueueSettings,
    Redis, Scope, Server, Settings, SettingsError, Smtp, Templates, Tls, TransportKind, given, value,
};
use crate::address::{Address, Mailbox};
use crate::queue::Limits;
use crate::retry::RetryPolicy;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// The templates that come with the sources.
const SHIPPED: &str = "shared/templates";

impl Settings {
    /// Reads a program's settings from an environment, and from the file that its `CONFIG_FILE` names.
    ///
    /// # Errors
    /// [`SettingsError`] with everything that is wrong, by name.
    pub fn load(
        program: Program,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut faults = Vec::new();
        let given = given::collect(env.into_iter().collect(), &mut faults);
        let settings = settings(program, &mut Reader::new(&given, &mut faults));
        match (settings, faults.is_empty()) {
            (Some(settings), true) => Ok(settings),
            _ => Err(SettingsError { faults }),
        }
    }
}

fn settings(program: Program, read: &mut Reader<'_>) -> Option<Settings> {
    let max_workers = read.number("max_workers", 10, 1, 10_000);
    let smtp = smtp(read, max_workers);
    let mail = mail(read, &smtp);
    let server = Server {
        listen: listen(read, "server.host", "server.port", 8080),
        max_body: read.parsed("server.max_body", 20 << 20, |text| match value::size(text)? {
            size @ 1_024..=1_073_741_824 => Ok(size),
            _ => Err("a size from 1KiB to 1GiB is expected".into()),
        }),
    };
    let auth = auth(program, read, &server.listen);
    let queue = queue(program, read);
    let settings = Settings {
        max_workers,
        server,
        auth,
        queue,
        retry: retry(read),
        expire_after: read.duration("jobs.expire_after", DAY),
        templates: templates(read),
        worker: listen(read, "worker.host", "worker.port", 9090),
        shutdown_timeout: read.duration("shutdown.timeout", Duration::from_secs(30)),
        log: log(read),
        mail: mail?,
        smtp,
    };
    Some(settings)
}

fn smtp(read: &mut Reader<'_>, max_workers: usize) -> Smtp {
    let (user, pass) = (read.text("smtp.user"), read.secret("smtp.pass"));
    let credentials = match (user, pass) {
        (Some(user), Some(pass)) => Some(Credentials { user, pass }),
        (None, None) => None,
        (Some(_), None) => {
            let (user, pass) = (read.name("smtp.user"), read.name("smtp.pass"));
            read.fault(format!("{user} is set without {pass}; both or none are expected"));
            None
        }
        (None, Some(_)) => {
            let (user, pass) = (read.name("smtp.user"), read.name("smtp.pass"));
            read.fault(format!("{pass} is set without {user}; both or none are expected"));
            None
        }
    };
    let host = read.text("smtp.host").unwrap_or_else(|| "smtp.qq.com".into());
    if host.contains(['/', ' ', '@']) || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
        read.bad("smtp.host", "a host name or an address is expected, without a scheme or a port");
    }
    Smtp {
        name: "default".into(),
        host,
        port: read.number("smtp.port", 587, 1, u16::MAX),
        credentials,
        tls: read.choice(
            "smtp.tls",
            Tls::Auto,
            &[
                ("auto", Tls::Auto),
                ("implicit", Tls::Implicit),
                ("starttls", Tls::Starttls),
                ("none", Tls::None),
            ],
        ),
        ca_file: existing(read, "smtp.ca_file", Path::is_file, "a file that exists is expected"),
        helo_name: read.text("smtp.helo_name"),
        max_connections: read.number("smtp.max_connections", max_workers, 1, 10_000),
        max_messages_per_connection: read.number("smtp.max_messages_per_connection", 100, 1, 1_000_000),
        connect_timeout: read.duration("smtp.connect_timeout", Duration::from_secs(30)),
        command_timeout: read.duration("smtp.command_timeout", MINUTE),
        data_timeout: read.duration("smtp.data_timeout", 10 * MINUTE),
        probe_max: read.duration("smtp.probe_max", MINUTE),
    }
}

fn existing(
    read: &mut Reader<'_>,
    key: &'static str,
    is: fn(&Path) -> bool,
    allowed: &str,
) -> Option<PathBuf> {
    let path = PathBuf::from(read.text(key)?);
    if is(&path) {
        return Some(path);
    }
    read.bad(key, allowed);
    None
}

fn mail(read: &mut Reader<'_>, smtp: &Smtp) -> Option<Mail> {
    let transport = read.choice(
        "mail.transport",
        TransportKind::Smtp,
        &[("smtp", TransportKind::Smtp), ("outbox", TransportKind::Outbox)],
    );
    let login = smtp.credentials.as_ref().and_then(|login| Address::parse(&login.user).ok());
    let from = match read.text("mail.from").map(|text| Mailbox::parse(&text)) {
        Some(Ok(from)) => Some(from),
        Some(Err(_)) => {
            read.bad("mail.from", "an address is expected, a@b.c or Name <a@b.c>");
            None
        }
        None => login.map(Mailbox::new).or_else(|| {
            let outbox = Mailbox::new(Address::parse("noreply@localhost").ok()?);
            (transport == TransportKind::Outbox).then_some(outbox)
        }),
    };
    if from.is_none() && read.given("mail.from").is_none() {
        read.fault(
            "MAIL_FROM is not set and SMTP_USER is no address: a sender is expected, a@b.c or Name <a@b.c>"
                .into(),
        );
    }
    let domains = read.text("mail.allowed_from");
    let from = from?;
    let allowed_from = match domains.as_deref() {
        Some("*") => AllowedFrom::Any,
        Some(list) => {
            let domains = list.split(',').map(|domain| Address::parse(&format!("x@{}", domain.trim())));
            let domains: Result<Vec<_>, _> =
                domains.map(|parsed| parsed.map(|a| a.domain().to_owned())).collect();
            AllowedFrom::Domains(domains.unwrap_or_else(|_| {
                read.bad("mail.allowed_from", "domains are expected, comma-separated, or *");
                Vec::new()
            }))
        }
        None => AllowedFrom::Domains(vec![from.address.domain().to_owned()]),
    };
    Some(Mail { from, allowed_from, transport })
}

fn listen(read: &mut Reader<'_>, host: &'static str, port: &'static str, default: u16) -> Listen {
    Listen {
        host: read.text(host).unwrap_or_else(|| "127.0.0.1".into()),
        port: read.number(port, default, 0, u16::MAX),
    }
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

fn auth(program: Program, read: &mut Reader<'_>, listen: &Listen) -> Auth {
    let disabled = read.flag("auth.disabled");
    let keys = match api_keys(read) {
        Ok(keys) => keys,
        Err(allowed) => {
            read.bad("auth.api_keys", &allowed);
            return Auth { keys: Vec::new(), disabled };
        }
    };
    if program == Program::Api && keys.is_empty() && !disabled && !listen.is_loopback() {
        let (host, name) = (read.name("server.host"), &listen.host);
        read.fault(format!(
            "{host} = {name:?} can be reached from elsewhere: API_KEYS is expected, or AUTH_DISABLED=true to run open on purpose"
        ));
    }
    Auth { keys, disabled }
}

fn api_keys(read: &Reader<'_>) -> Result<Vec<ApiKey>, String> {
    let keys = match read.given("auth.api_keys").map(|given| &given.value) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => text.split(',').map(|one| key_from_text(one.trim())).collect(),
        Some(Value::Array(list)) => list.iter().map(key_from_object).collect::<Result<Vec<_>, _>>(),
        Some(_) => Err("name:key[:scope+scope],… or a list of {name,key,scopes} is expected".into()),
    }?;
    for (n, key) in keys.iter().enumerate() {
        if keys[..n].iter().any(|other| other.name == key.name) {
            return Err(format!("the name {:?} is there twice", key.name));
        }
        if keys[..n].iter().any(|other| other.key.expose_secret() == key.key.expose_secret()) {
            return Err(format!("{:?} has the same key as another", key.name));
        }
    }
    Ok(keys)
}

fn key_from_text(text: &str) -> Result<ApiKey, String> {
    let mut parts = text.splitn(3, ':');
    let (name, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let scopes = parts.next().map(|scopes| scopes.split('+').map(str::to_owned).collect());
    api_key(name, key, scopes)
}

fn key_from_object(value: &Value) -> Result<ApiKey, String> {
    let Value::Object(fields) = value else {
        return Err("{name,key,scopes} is expected".into());
    };
    if let Some(unknown) = fields.keys().find(|field| !["name", "key", "scopes"].contains(&field.as_str())) {
        return Err(format!("{unknown:?} is no field of a key: name, key and scopes are"));
    }
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    if ["name", "key"].iter().any(|field| value.get(field).is_some_and(|value| !value.is_string())) {
        return Err("name and key must be texts: put them in quotes".into());
    }
    let scopes = match value.get("scopes") {
        None | Some(Value::Null) => None,
        Some(Value::Array(scopes)) => {
            Some(scopes.iter().map(|s| s.as_str().unwrap_or_default().to_owned()).collect())
        }
        Some(_) => return Err("scopes: a list is expected".into()),
    };
    api_key(text("name"), text("key"), scopes)
}

fn api_key(name: &str, key: &str, scopes: Option<Vec<String>>) -> Result<ApiKey, String> {
    if name.is_empty() || key.is_empty() {
        return Err("each key needs a name and a key: name:key[:scope+scope]".into());
    }
    let scopes: Option<Vec<Scope>> = match scopes {
        None => Some(vec![Scope::Send]),
        Some(words) => words
            .iter()
            .map(|word| match word.as_str() {
                "send" => Some(Scope::Send),
                "read" => Some(Scope::Read),
                "admin" => Some(Scope::Admin),
                _ => None,
            })
            .collect(),
    };
    let scopes = scopes.filter(|scopes| !scopes.is_empty());
    let scopes = scopes.ok_or_else(|| format!("the scopes of {name:?}: send, read and admin are allowed"))?;
    Ok(ApiKey { name: name.to_owned(), key: SecretString::from(key.to_owned()), scopes })
}

fn queue(program: Program, read: &mut Reader<'_>) -> QueueSettings {
    let redis = redis(read);
    let backend = read.parsed("queue.type", Backend::Memory, |text| match text.to_lowercase().as_str() {
        "memory" => Ok(Backend::Memory),
        "redis" => Ok(Backend::Redis(redis.clone())),
        "nats" => Err("not supported yet; memory and redis are".into()),
        _ => Err("memory or redis is expected".into()),
    });
    if let (Program::Worker, Backend::Memory) = (program, &backend) {
        let name = read.name("queue.type");
        read.fault(format!(
            "{name} = \"memory\": that queue lives inside emailer-api, which delivers its jobs itself, so that there is \
             nothing for a worker to claim; run emailer-api alone, or set redis for both"
        ));
    }
    let name = read.parsed("queue.name", "emailer".to_owned(), |text| {
        let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if is_plain && text.len() <= 64 {
            Ok(text.to_owned())
        } else {
            Err("up to 64 letters, digits, - and _ are expected".into())
        }
    });
    let default_size = if matches!(backend, Backend::Memory) { 1_000 } else { 100_000 };
    let max_queue_size = read.number("max_queue_size", default_size, 1, 100_000_000);
    let buffer_size = read.number("queue.memory.buffer_size", max_queue_size, 1, 100_000_000);
    let limits = Limits {
        max_queue_size: match backend {
            Backend::Memory => max_queue_size.min(buffer_size),
            Backend::Redis(_) => max_queue_size,
        },
        max_scheduled: read.number("jobs.max_scheduled", 100_000, 0, 100_000_000),
        lease: read.parsed("queue.lease", MINUTE, |text| match value::duration(text)? {
            lease if lease >= Duration::from_secs(1) => Ok(lease),
            _ => Err("at least 1s is expected".into()),
        }),
        retention: read.duration("jobs.retention", DAY),
        failed_retention: read.duration("jobs.failed_retention", 7 * DAY),
        retain: read.number("jobs.retain", 100_000, 0, 100_000_000),
    };
    QueueSettings { backend, name, limits }
}

fn redis(read: &mut Reader<'_>) -> Redis {
    let url = read.secret("queue.redis.url").unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned().into());
    if let Err(wrong) = crate::queue::redis::check_url(&url) {
        read.bad("queue.redis.url", &wrong.to_string());
    }
    Redis { url, allow_unsafe: read.flag("queue.redis.allow_unsafe") }
}

fn retry(read: &mut Reader<'_>) -> RetryPolicy {
    let default = RetryPolicy::default();
    RetryPolicy {
        max_retries: read.number("retry.max_retries", default.max_retries, 0, 1_000),
        base_delay: read.duration("retry.base_delay", default.base_delay),
        max_delay: read.duration("retry.max_delay", default.max_delay),
        multiplier: read.number("retry.multiplier", default.multiplier, 1.0, 100.0),
        jitter: read.number("retry.jitter", default.jitter, 0.0, 1.0),
    }
}

fn templates(read: &mut Reader<'_>) -> Templates {
    let dir = if read.given("templates.dir").is_some() {
        existing(read, "templates.dir", Path::is_dir, "a folder that exists is expected")
    } else {
        Some(PathBuf::from(SHIPPED)).filter(|dir| dir.is_dir())
    };
    let default_locale = read.parsed("templates.default_locale", "en".to_owned(), |text| {
        let is_tag = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if is_tag {
            Ok(text.to_owned())
        } else {
            Err("a language tag such as en or zh-CN is expected".into())
        }
    });
    Templates { dir, default_locale }
}

fn log(read: &mut Reader<'_>) -> Log {
    let filter = read.parsed("log.level", "info".to_owned(), |text| {
        let level = match text.to_lowercase().as_str() {
            "warning" => "warn".to_owned(),
            level @ ("trace" | "debug" | "info" | "warn" | "error" | "off") => level.to_owned(),
            _ => text.to_owned(),
        };
        let is_filter = tracing_subscriber::EnvFilter::try_new(&level).is_ok();
        let is_word = level.bytes().all(|b| b.is_ascii_alphabetic());
        if is_filter
            && (!is_word || matches!(level.as_str(), "trace" | "debug" | "info" | "warn" | "error" | "off"))
        {
            Ok(level)
        } else {
            Err("DEBUG, INFO, WARNING, ERROR or a filter such as worker=debug,info is expected".into())
        }
    });
    let format =
        read.choice("log.format", LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    Log { filter, format }
}

#[cfg(test)]
mod tests;
