//! What is wrong with a request: which rules, and where.

use serde::Serialize;

macro_rules! rules {
    ($($variant:ident = $word:literal),* $(,)?) => {
        /// Which rule of a request is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub(crate) enum Rule { $(#[serde(rename = $word)] $variant),* }
    };
}

rules! {
    Required = "required",
    WrongType = "wrong_type",
    UnknownField = "unknown_field",
    TooLong = "too_long",
    TooMany = "too_many",
    Duplicate = "duplicate",
    InvalidAddress = "invalid_address",
    ForbiddenHeader = "forbidden_header",
    ControlCharacter = "control_character",
    Conflict = "conflict",
    UnknownTemplate = "unknown_template",
    UndefinedVariable = "undefined_variable",
    InvalidTime = "invalid_time",
    InvalidValue = "invalid_value",
}

/// A broken rule of a request: where, which, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// JSON pointer (RFC 6901) into the body; `?name` for a query parameter, `Name:` for a header.
    pub(crate) pointer: String,
    pub(crate) code: Rule,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(pointer: impl Into<String>, code: Rule, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, message: message.into() }
    }
}

/// Everything that is wrong with a request, up to a bound: an answer is not to be many times as long as its request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// More than a request of the allowed length can have honestly: a few for each of its recipients.
    pub(crate) const LIMIT: usize = 5_000;

    pub(crate) fn add(&mut self, pointer: impl Into<String>, code: Rule, message: impl Into<String>) {
        if self.0.len() < Self::LIMIT {
            self.0.push(Fault::new(pointer, code, message));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a fault of this place is told already: then that it is missing is not.
    pub(crate) fn names(&self, pointer: &str) -> bool {
        self.0.iter().any(|fault| fault.pointer == pointer)
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}
