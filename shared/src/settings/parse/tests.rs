use std::io::Write as _;

use super::super::catalogue::SETTINGS;
use super::*;

fn load(env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::load(Program::Api, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn faults(env: &[(&str, &str)]) -> Vec<String> {
    load(env).unwrap_err().faults
}

fn file(extension: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn defaults_are_those_of_the_table() {
    let settings = load(&[("MAIL_FROM", "a@b.c")]).unwrap();
    assert_eq!(
        (settings.smtp.host.as_str(), settings.smtp.port, settings.smtp.tls),
        ("smtp.qq.com", 587, Tls::Auto)
    );
    assert_eq!((settings.max_workers, settings.smtp.max_connections), (10, 10));
    assert_eq!(settings.retry, RetryPolicy::default());
    assert_eq!(settings.queue.limits.max_queue_size, 1_000);
    assert_eq!(settings.mail.allowed_from, AllowedFrom::Domains(vec!["b.c".into()]));
    assert_eq!((settings.server.listen.host.as_str(), settings.server.listen.port), ("127.0.0.1", 8080));
}

#[test]
fn files_of_the_service_before_work_as_they_are() {
    let yaml = "smtp:\n  host: smtp.163.com\n  port: 465\n  user: me@163.com\n  pass: secret\nserver:\n  port: \"8081\"\nmax_workers: 4\nmax_queue_size: 2000\nqueue:\n  type: memory\n  memory:\n    buffer_size: 1000\n";
    let toml = "max_workers = 4\nmax_queue_size = 2000\n[smtp]\nhost = \"smtp.163.com\"\nport = 465\nuser = \"me@163.com\"\npass = \"secret\"\n[server]\nport = 8081\n[queue]\ntype = \"memory\"\n[queue.memory]\nbuffer_size = 1000\n";
    let json = r#"{"smtp":{"host":"smtp.163.com","port":"465","user":"me@163.com","pass":"secret"},"server":{"port":"8081"},"max_workers":4,"max_queue_size":2000,"queue":{"type":"memory","memory":{"buffer_size":1000}}}"#;
    for (extension, text) in [(".yaml", yaml), (".toml", toml), (".json", json)] {
        let file = file(extension, text);
        let path = file.path().to_str().unwrap();
        // The bare name is not read beside a file.
        let settings = load(&[("CONFIG_FILE", path), ("SMTP_HOST", "not.read")]).unwrap();
        assert_eq!((settings.smtp.host.as_str(), settings.smtp.port), ("smtp.163.com", 465), "{extension}");
        assert_eq!((settings.server.listen.port, settings.max_workers), (8081, 4));
        assert_eq!(settings.queue.limits.max_queue_size, 1_000);
        assert_eq!(settings.mail.from.address.as_str(), "me@163.com");
        let settings = load(&[("CONFIG_FILE", path), ("EMAIL_SMTP_HOST", "over.example.com")]).unwrap();
        assert_eq!(settings.smtp.host, "over.example.com");
    }
}

#[test]
fn every_fault_is_listed_by_the_name_it_was_given_by() {
    let faults = faults(&[
        ("SMTP_PORT", "0"),
        ("EMAIL_MAX_WORKERS", "many"),
        ("SMTP_TLS", "ssl"),
        ("SMTP_USER", "me"),
        ("RETRY_JITTER", "1.5"),
        ("SHUTDOWN_TIMEOUT", "30"),
        ("MAIL_FROM", "nobody"),
        ("EMAIL_SMPT_HOST", "x"),
        ("LOG_LEVEL", "LOUD"),
        ("SERVER_HOST", "0.0.0.0"),
        ("QUEUE_TYPE", "kafka"),
        ("TEMPLATES_DIR", "/no/such/folder"),
    ]);
    for expected in [
        "SMTP_PORT = \"0\": a number from 1 to 65535 is expected",
        "EMAIL_MAX_WORKERS = \"many\": a number from 1 to 10000 is expected",
        "SMTP_TLS = \"ssl\": one of auto, implicit, starttls, none is expected",
        "SMTP_USER is set without SMTP_PASS; both or none are expected",
        "RETRY_JITTER = \"1.5\": a number from 0 to 1 is expected",
        "SHUTDOWN_TIMEOUT = \"30\": a duration such as 500ms, 30s, 1m, 24h or 7d is expected",
        "MAIL_FROM = \"nobody\": an address is expected, a@b.c or Name <a@b.c>",
        "EMAIL_SMPT_HOST is not a setting; is EMAIL_SMTP_HOST meant?",
        "LOG_LEVEL = \"LOUD\": DEBUG, INFO, WARNING, ERROR or a filter such as worker=debug,info is expected",
        "QUEUE_TYPE = \"kafka\": memory or redis is expected",
        "TEMPLATES_DIR = \"/no/such/folder\": a folder that exists is expected",
    ] {
        assert!(faults.iter().any(|fault| fault == expected), "{expected}\nis not in {faults:#?}");
    }
    assert!(
        faults.iter().any(|fault| fault.starts_with("SERVER_HOST = \"0.0.0.0\" can be reached")),
        "{faults:#?}"
    );
    assert_eq!(faults.len(), 12, "{faults:#?}");
}

#[test]
fn unknown_key_of_a_file_suggests_the_nearest() {
    let file = file(
        ".yaml",
        "mail: {from: a@b.c}\nsmtp: {hots: x}\nmax_worker: 3\nfoo: 1\nqueue: {nats: {url: x}}\n",
    );
    let mut faults = faults(&[("CONFIG_FILE", file.path().to_str().unwrap())]);
    faults.sort();
    assert_eq!(
        faults,
        [
            "foo is not a setting; --help lists them all",
            "max_worker is not a setting; is max_workers meant?",
            "queue.nats.url is not supported yet; remove it",
            "smtp.hots is not a setting; is smtp.host meant?",
        ]
    );
}

#[test]
fn what_is_not_built_is_refused_and_not_ignored() {
    for (name, value) in [
        ("DKIM_DOMAIN", "x"),
        ("EMAIL_CALLBACK_URL", "x"),
        ("NATS_URL", "x"),
        ("SMTP_RATE_LIMIT", "1/1m"),
        ("QUEUE_TYPE", "nats"),
    ] {
        let faults = faults(&[("MAIL_FROM", "a@b.c"), (name, value)]);
        assert!(
            faults.len() == 1 && faults[0].contains(name) && faults[0].contains("not supported yet"),
            "{faults:?}"
        );
    }
}

#[test]
fn redis_is_told_where_it_is_and_holds_more() {
    let given = [("MAIL_FROM", "a@b.c"), ("QUEUE_TYPE", "redis"), ("QUEUE_MEMORY_BUFFER_SIZE", "5")];
    let settings = load(&given).unwrap();
    let Backend::Redis(redis) = settings.queue.backend else { panic!("it is not Redis") };
    assert_eq!((redis.url.expose_secret(), redis.allow_unsafe), ("redis://127.0.0.1:6379", false));
    assert_eq!(settings.queue.limits.max_queue_size, 100_000);
    let faults = faults(&[("MAIL_FROM", "a@b.c"), ("REDIS_URL", "http://u:secret@h")]);
    assert!(faults.len() == 1 && faults[0].starts_with("REDIS_URL: "), "{faults:?}");
    assert!(!faults[0].contains("secret"), "{faults:?}");
}

#[test]
fn worker_is_asked_for_what_it_needs_and_no_more() {
    let load = |env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load(Program::Worker, env)
    };
    // Where the API listens, and who may call it, is not its affair.
    load(&[("MAIL_FROM", "a@b.c"), ("QUEUE_TYPE", "redis"), ("SERVER_HOST", "0.0.0.0")]).unwrap();
    let faults = load(&[]).unwrap_err().faults;
    assert!(faults.iter().any(|fault| fault.starts_with("QUEUE_TYPE = \"memory\"")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("MAIL_FROM")), "{faults:?}");
}

#[test]
fn sender_is_the_login_where_that_is_an_address_and_must_be_known() {
    let settings = load(&[("SMTP_USER", "me@qq.com"), ("SMTP_PASS", "x")]).unwrap();
    assert_eq!(settings.mail.from.address.as_str(), "me@qq.com");
    assert!(faults(&[])[0].starts_with("MAIL_FROM is not set"));
    let settings = load(&[("MAIL_TRANSPORT", "outbox")]).unwrap();
    assert_eq!(settings.mail.from.address.as_str(), "noreply@localhost");
}

#[test]
fn secret_is_read_from_a_file_without_its_last_line_feed() {
    let file = file("", "pass word \n");
    let path = file.path().to_str().unwrap();
    let settings = load(&[("SMTP_USER", "me@qq.com"), ("SMTP_PASS_FILE", path)]).unwrap();
    assert_eq!(settings.smtp.credentials.unwrap().pass.expose_secret(), "pass word ");
    let faults = faults(&[("SMTP_USER", "me@qq.com"), ("SMTP_PASS_FILE", path), ("SMTP_PASS", "x")]);
    assert!(faults[0].contains("SMTP_PASS and SMTP_PASS_FILE are both set"), "{faults:?}");
}

#[test]
fn secret_that_is_not_set_comes_from_a_credential_of_systemd() {
    let folder = tempfile::tempdir().unwrap();
    let given = [("SMTP_USER", "me@qq.com"), ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
    let pass = |settings: Settings| settings.smtp.credentials.unwrap().pass.expose_secret().to_owned();
    assert!(faults(&given)[0].contains("SMTP_PASS"), "none is there: as without the folder");
    std::fs::write(folder.path().join("emailer_smtp_pass"), "from systemd\n").unwrap();
    assert_eq!(pass(load(&given).unwrap()), "from systemd");
    for over in ["SMTP_PASS", "EMAIL_SMTP_PASS"] {
        assert_eq!(pass(load(&[&given[..], &[(over, "set")]].concat()).unwrap()), "set");
    }
    let yaml = file(".yaml", "smtp: {user: me@qq.com, pass: from the file}\n");
    let config = ("CONFIG_FILE", yaml.path().to_str().unwrap());
    assert_eq!(pass(load(&[config, given[1]]).unwrap()), "from the file");
    std::fs::write(folder.path().join("emailer_api_keys"), "").unwrap();
    let faults = faults(&given);
    assert!(faults[0].ends_with("emailer_api_keys: the file is empty"), "{faults:?}");
}

#[test]
fn api_keys_are_read_from_text_and_from_a_list() {
    let settings = load(&[("MAIL_FROM", "a@b.c"), ("API_KEYS", "app:k1,ops:k2:read+admin")]).unwrap();
    let keys = settings.auth.keys;
    assert_eq!((keys[0].name.as_str(), keys[0].scopes.as_slice()), ("app", [Scope::Send].as_slice()));
    assert_eq!(keys[1].scopes, [Scope::Read, Scope::Admin]);
    let file = file(
        ".yaml",
        "mail: {from: a@b.c}\nauth:\n  api_keys:\n    - {name: app, key: k1, scopes: [send, read]}\n",
    );
    let settings = load(&[("CONFIG_FILE", file.path().to_str().unwrap())]).unwrap();
    assert_eq!(settings.auth.keys[0].scopes, [Scope::Send, Scope::Read]);
    for bad in ["app", "app:", ":key", "a:k:fly", "a:k,a:j", "a:k,b:k", "a:k:"] {
        let faults = faults(&[("MAIL_FROM", "a@b.c"), ("API_KEYS", bad)]);
        assert!(faults.len() == 1 && faults[0].starts_with("API_KEYS: "), "{bad}: {faults:?}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let secret = "hunter2hunter2";
    let keys = format!("app:{secret}");
    let settings = load(&[("SMTP_USER", "me@qq.com"), ("SMTP_PASS", secret), ("API_KEYS", &keys)]).unwrap();
    assert!(!format!("{settings:?}").contains(secret));
    let keys = format!("app:{secret}:fly,:{secret}");
    let error = load(&[("SMTP_PASS", secret), ("API_KEYS", &keys)]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret), "{error}");
}

#[test]
fn example_files_show_every_setting_with_its_default() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/emailer");
    let default =
        load(&[("MAIL_FROM", "noreply@example.com"), ("SMTP_USER", "me@example.com"), ("SMTP_PASS", "x")])
            .unwrap();
    for extension in ["yaml", "toml", "json"] {
        let path = format!("{folder}.{extension}");
        let text = std::fs::read_to_string(&path).unwrap();
        let settings = load(&[("CONFIG_FILE", &path)]).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut like_default = settings.clone();
        // What an example must fill in.
        like_default.auth = default.auth.clone();
        like_default.smtp.credentials = default.smtp.credentials.clone();
        like_default.smtp.helo_name = None;
        like_default.templates.dir = default.templates.dir.clone();
        assert_eq!(format!("{like_default:?}"), format!("{default:?}"), "{path}");
        for setting in SETTINGS {
            let name = setting.key.rsplit('.').next().unwrap();
            assert!(text.contains(name), "{path} lacks {}", setting.key);
        }
    }
}

#[test]
fn readmes_show_the_table_of_the_code() {
    let table = super::super::readme_table();
    let columns = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect()
    };
    for (name, is_translated) in [("README.md", false), ("README.zh-CN.md", true)] {
        let text = std::fs::read_to_string(format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let (_, rest) = text.split_once("<!-- settings:begin -->\n").unwrap();
        let (shown, _) = rest.split_once("<!-- settings:end -->").unwrap();
        if is_translated {
            assert_eq!(
                columns(shown),
                columns(&table),
                "{name}: the table's first columns differ from the code's"
            );
        } else {
            assert!(shown == table, "{name}: run cargo run -p shared --example settings-table");
        }
    }
}

#[test]
fn file_that_cannot_be_read_shows_none_of_its_secrets() {
    for (end, text) in
        [(".toml", "[smtp]\npass = \"hunter2secret\n"), (".json", "{\"smtp\":{\"pass\":\"hunter2secret}")]
    {
        let file = file(end, text);
        let faults = faults(&[("MAIL_FROM", "a@b.c"), ("CONFIG_FILE", file.path().to_str().unwrap())]);
        assert!(faults[0].contains("line"), "{faults:?}");
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
}

#[test]
fn field_of_a_key_that_nobody_knows_is_a_fault() {
    for (keys, expected) in [
        ("[{name: ops, key: abc, scope: [admin]}]", "\"scope\" is no field of a key"),
        ("[{name: ops, key: 123456}]", "put them in quotes"),
    ] {
        let file = file(".yaml", &format!("mail: {{from: a@b.c}}\nauth: {{api_keys: {keys}}}\n"));
        let faults = faults(&[("CONFIG_FILE", file.path().to_str().unwrap())]);
        assert!(faults.len() == 1 && faults[0].contains(expected), "{faults:?}");
    }
}

#[test]
fn secret_that_a_file_changes_is_refused() {
    let file = file(".yaml", "mail: {from: a@b.c}\nsmtp: {user: me, pass: 1e5}\n");
    let faults = faults(&[("CONFIG_FILE", file.path().to_str().unwrap())]);
    assert!(
        faults.iter().any(|fault| fault == "smtp.pass: a text is expected: put it in quotes"),
        "{faults:?}"
    );
}
