//! Takes what was given apart, value by value; a fault is noted and reading goes on.

use std::fmt::Display;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;

use super::catalogue::Setting;
use super::given::{AllGiven, Given};
use super::value;

/// Reads values and collects what is wrong with them.
pub(super) struct Reader<'a> {
    given: &'a AllGiven,
    faults: &'a mut Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(given: &'a AllGiven, faults: &'a mut Vec<String>) -> Self {
        Self { given, faults }
    }

    pub(super) fn given(&self, key: &str) -> Option<&'a Given> {
        debug_assert!(Setting::by_key(key).is_some(), "{key} is in no catalogue");
        self.given.get(key)
    }

    /// The name by which a setting was given, or can be.
    pub(super) fn name(&self, key: &'static str) -> &'a str {
        match self.given.get(key) {
            Some(given) => &given.name,
            None => Setting::by_key(key).map_or(key, |setting| setting.env),
        }
    }

    pub(super) fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    /// Notes a fault of a value: its name, the value unless it is a secret, what is allowed.
    pub(super) fn bad(&mut self, key: &str, allowed: &str) {
        let Some(given) = self.given(key) else { return };
        let is_secret = Setting::by_key(key).is_some_and(|setting| setting.is_secret);
        self.faults.push(if is_secret {
            format!("{}: {allowed}", given.name)
        } else {
            format!("{} = {}: {allowed}", given.name, shown(&given.value))
        });
    }

    /// A value as text: numbers and booleans in a file are as good as strings.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match &self.given(key)?.value {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => {
                self.bad(key, "a single value is expected");
                None
            }
        }
    }

    /// A value by its own parser.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.text(key) else {
            return default;
        };
        parse(&text).unwrap_or_else(|allowed| {
            self.bad(key, &allowed);
            default
        })
    }

    /// A number within bounds.
    pub(super) fn number<T>(&mut self, key: &'static str, default: T, min: T, max: T) -> T
    where
        T: std::str::FromStr + PartialOrd + Display + Copy,
    {
        self.parsed(key, default, |text| {
            let number = text.parse::<T>().ok().filter(|number| (min..=max).contains(number));
            number.ok_or_else(|| format!("a number from {min} to {max} is expected"))
        })
    }

    /// A duration that is not zero.
    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        self.parsed(key, default, |text| match value::duration(text)? {
            Duration::ZERO => Err("more than zero is expected".into()),
            duration => Ok(duration),
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        self.parsed(key, default, |text| {
            let found =
                words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value);
            found.ok_or_else(|| {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("one of {} is expected", words.join(", "))
            })
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.choice(
            key,
            false,
            &[("true", true), ("false", false), ("1", true), ("0", false), ("yes", true), ("no", false)],
        )
    }

    pub(super) fn secret(&mut self, key: &'static str) -> Option<SecretString> {
        match &self.given(key)?.value {
            // Not trimmed: a password may end with a blank.
            Value::String(text) => Some(text.clone().into()),
            Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
            _ => {
                self.bad(key, "a text is expected: put it in quotes");
                None
            }
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
