//! What was given, and by which name: the file or the bare environment, `EMAIL_*` over it, secrets from files.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::catalogue::{NOT_BUILT, SETTINGS, Setting, nearest};

/// What is wrong with the configuration: all of it, a line each. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// A line for each fault.
    pub faults: Vec<String>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The configuration cannot be used:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for SettingsError {}

/// A value and the name that it was given by.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) name: String,
    pub(super) value: Value,
}

/// All that was given, by key.
pub(super) type AllGiven = BTreeMap<&'static str, Given>;

/// Collects what was given; what is wrong with names and sources goes into `faults`.
pub(super) fn collect(env: Vec<(String, String)>, faults: &mut Vec<String>) -> AllGiven {
    // A variable that is set and empty is as one that is not set: so Compose and Kubernetes leave them.
    let env: Vec<(String, String)> = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut all = AllGiven::new();
    match env.iter().find(|(name, _)| name == "CONFIG_FILE") {
        Some((_, path)) => from_file(Path::new(path), &mut all, faults),
        None => from_environment("", &env, &mut all, faults),
    }
    from_environment("EMAIL_", &env, &mut all, faults);
    if let Some((_, folder)) = env.iter().find(|(name, _)| name == "CREDENTIALS_DIRECTORY") {
        from_credentials(Path::new(folder), &mut all, faults);
    }
    all
}

/// Secrets that systemd hands over and nothing else has given. `LoadCredential=emailer:<folder>` calls each file of
/// the folder `emailer_<its name>`; a secret's is its variable in lower case.
fn from_credentials(folder: &Path, all: &mut AllGiven, faults: &mut Vec<String>) {
    for setting in SETTINGS.iter().filter(|setting| setting.is_secret) {
        let path = folder.join(format!("emailer_{}", setting.env.to_lowercase()));
        if all.contains_key(setting.key) || !path.exists() {
            continue;
        }
        let name = path.display().to_string();
        match secret_from(&name) {
            Ok(text) => drop(all.insert(setting.key, Given { name, value: Value::String(text) })),
            Err(why) => faults.push(format!("{name}: {why}")),
        }
    }
}

fn from_environment(prefix: &str, env: &[(String, String)], all: &mut AllGiven, faults: &mut Vec<String>) {
    // envy gives names in lower case; every value is a string until we parse it, so that each error can name it.
    let read: Result<HashMap<String, String>, _> = if prefix.is_empty() {
        envy::from_iter(env.iter().cloned())
    } else {
        envy::prefixed(prefix).from_iter(env.iter().cloned())
    };
    let read = match read {
        Ok(read) => read,
        Err(error) => return faults.push(format!("the environment cannot be read: {error}")),
    };
    let mut names: Vec<_> = read.into_iter().map(|(name, value)| (name.to_uppercase(), value)).collect();
    names.sort();
    for setting in SETTINGS {
        let value =
            |name: &str| names.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let name = format!("{prefix}{}", setting.env);
        let file = format!("{}_FILE", setting.env);
        let direct = value(setting.env);
        let from_file = if setting.is_secret { value(&file) } else { None };
        let text = match (direct, from_file) {
            (Some(_), Some(_)) => {
                faults.push(format!("{name} and {prefix}{file} are both set; one is allowed"));
                continue;
            }
            (Some(text), None) => text,
            (None, Some(path)) => match secret_from(&path) {
                Ok(text) => text,
                Err(why) => {
                    faults.push(format!("{prefix}{file} = {path:?}: {why}"));
                    continue;
                }
            },
            (None, None) => continue,
        };
        all.insert(setting.key, Given { name, value: Value::String(text) });
    }
    for (name, _) in &names {
        if NOT_BUILT.iter().any(|(_, env)| name == env || (env.ends_with('_') && name.starts_with(env))) {
            faults.push(format!("{prefix}{name} is not supported yet; remove it"));
        } else if !prefix.is_empty() && !is_known_variable(name) {
            let suggestion = nearest(name, SETTINGS.iter().map(|setting| setting.env));
            faults
                .push(unknown(&format!("{prefix}{name}"), suggestion.map(|name| format!("{prefix}{name}"))));
        }
    }
}

fn is_known_variable(name: &str) -> bool {
    let secret_file =
        || name.strip_suffix("_FILE").and_then(Setting::by_env).is_some_and(|setting| setting.is_secret);
    Setting::by_env(name).is_some() || secret_file()
}

fn unknown(name: &str, suggestion: Option<String>) -> String {
    match suggestion {
        Some(suggestion) => format!("{name} is not a setting; is {suggestion} meant?"),
        None => format!("{name} is not a setting; --help lists them all"),
    }
}

fn secret_from(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() { Err("the file is empty".into()) } else { Ok(text.to_owned()) }
}

fn from_file(path: &Path, all: &mut AllGiven, faults: &mut Vec<String>) {
    let extension =
        path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
    let format = match extension.as_str() {
        "yaml" | "yml" => config::FileFormat::Yaml,
        "toml" => config::FileFormat::Toml,
        "json" => config::FileFormat::Json,
        _ => {
            return faults.push(format!(
                "CONFIG_FILE = {:?}: a .yaml, .toml or .json file is expected",
                path.display()
            ));
        }
    };
    let source = config::File::from(path).format(format);
    let read = config::Config::builder()
        .add_source(source)
        .build()
        .and_then(config::Config::try_deserialize::<Value>);
    match read {
        Ok(Value::Object(root)) => flatten("", root, all, faults),
        Ok(_) => faults.push(format!("CONFIG_FILE = {:?}: keys and values are expected", path.display())),
        Err(error) => faults.push(format!("CONFIG_FILE = {:?}: {}", path.display(), without_source(&error))),
    }
}

/// What a parser says, without the lines of the file that it shows: a password may be on them.
fn without_source(error: &config::ConfigError) -> String {
    let text = error.to_string();
    let is_source =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    text.lines().filter(|line| !is_source(line)).collect::<Vec<_>>().join(": ")
}

fn flatten(
    prefix: &str,
    object: serde_json::Map<String, Value>,
    all: &mut AllGiven,
    faults: &mut Vec<String>,
) {
    for (name, value) in object {
        let key = format!("{prefix}{name}");
        // A key that is there without a value is as one that is not there.
        if value.is_null() {
            continue;
        }
        if NOT_BUILT
            .iter()
            .any(|(start, _)| key == *start || (start.ends_with('.') && key.starts_with(start)))
        {
            faults.push(format!("{key} is not supported yet; remove it"));
            continue;
        }
        let secret = key.strip_suffix("_file").and_then(Setting::by_key).filter(|setting| setting.is_secret);
        match (Setting::by_key(&key), value) {
            (Some(setting), value) => {
                if all.insert(setting.key, Given { name: key.clone(), value }).is_some() {
                    faults.push(format!("{key} and {key}_file are both set; one is allowed"));
                }
            }
            (None, Value::Object(object)) => flatten(&format!("{key}."), object, all, faults),
            (None, Value::String(path)) if secret.is_some() => {
                let (Some(setting), text) = (secret, secret_from(&path)) else {
                    continue;
                };
                match text {
                    Ok(text) => {
                        let given = Given { name: key.clone(), value: Value::String(text) };
                        if all.insert(setting.key, given).is_some() {
                            faults.push(format!("{} and {key} are both set; one is allowed", setting.key));
                        }
                    }
                    Err(why) => faults.push(format!("{key} = {path:?}: {why}")),
                }
            }
            (None, _) => {
                let suggestion = nearest(&key, SETTINGS.iter().map(|setting| setting.key));
                faults.push(unknown(&key, suggestion.map(ToOwned::to_owned)));
            }
        }
    }
}
