//! E-mail addresses, parsed once at the edge.
//!
//! An [`Address`] and a [`Mailbox`] mask themselves in `Display` and `Debug`, so that nobody can log one by
//! accident; whoever needs the text asks for it by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One address, `local@domain` (RFC 5321 §4.1.2, RFC 6531 for a local part beyond ASCII). The domain is held
/// as A-labels in lower case (RFC 5890), so that it can go to any server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(lettre::Address);

impl Address {
    /// Parses `local@domain`. A domain beyond ASCII is turned into A-labels.
    ///
    /// # Errors
    /// [`InvalidAddress`] when it is not an address that SMTP can carry: the local part over 64 octets, the
    /// whole over 254 (RFC 5321 §4.5.3.1), an address literal, a control character.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidAddress);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidAddress)?;
        let domain = idna::domain_to_ascii(domain).map_err(|_| InvalidAddress)?;
        if local.len() > 64 || domain.starts_with('[') || local.len() + 1 + domain.len() > 254 {
            return Err(InvalidAddress);
        }
        lettre::Address::new(local, domain).map(Self).map_err(|_| InvalidAddress)
    }

    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The part before the `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        self.0.user()
    }

    /// The domain, as A-labels in lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// Whether it needs SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.as_str().is_ascii()
    }

    /// What two addresses of one mailbox have in common: the local part in lower case, the domain as it is.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}@{}", self.local().to_lowercase(), self.domain())
    }

    /// As lettre's type.
    #[must_use]
    pub fn as_lettre(&self) -> &lettre::Address {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: String = self.local().chars().take(1).collect();
        write!(f, "{first}***@{}", self.domain())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// An address with an optional display name (RFC 5322 §3.4).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// The display name: no CR, LF, NUL or other control character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

impl Mailbox {
    /// A mailbox without a name.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { name: None, address }
    }

    /// Checks the name. An empty one is none.
    ///
    /// # Errors
    /// [`InvalidAddress`] when the name holds a control character.
    pub fn try_new(name: Option<&str>, address: Address) -> Result<Self, InvalidAddress> {
        let name = name.map(str::trim).filter(|n| !n.is_empty());
        if name.is_some_and(|n| n.chars().any(char::is_control)) {
            return Err(InvalidAddress);
        }
        Ok(Self { name: name.map(Into::into), address })
    }

    /// Parses `a@b`, `<a@b>`, `Name <a@b>` or `"Name" <a@b>`.
    ///
    /// # Errors
    /// [`InvalidAddress`] when it is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        let Some(inner) = text.strip_suffix('>') else {
            return Address::parse(text).map(Self::new);
        };
        let (name, address) = inner.rsplit_once('<').ok_or(InvalidAddress)?;
        let name = name.trim();
        let name = match name.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"').ok_or(InvalidAddress)?.replace("\\\"", "\""),
            None if name.contains(['<', '>', '"', '@', ',']) => return Err(InvalidAddress),
            None => name.to_owned(),
        };
        Self::try_new(Some(&name), Address::parse(address)?)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Mailbox {
    type Err = InvalidAddress;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

/// Not an address that SMTP can carry. It does not hold the text: an error may be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address: expected local@domain, as in RFC 5321")]
pub struct InvalidAddress;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_never_shows_itself() {
        let address = Address::parse("wang.wei@example.com").unwrap();
        assert_eq!(format!("{address} {address:?}"), "w***@example.com w***@example.com");
        assert_eq!(
            format!("{:?}", Mailbox::parse("王伟 <wang.wei@example.com>").unwrap()),
            "w***@example.com"
        );
    }

    #[test]
    fn domain_is_held_as_a_labels() {
        let address = Address::parse("a@Bücher.Example").unwrap();
        assert_eq!(address.as_str(), "a@xn--bcher-kva.example");
        assert!(!address.needs_smtputf8());
        assert!(Address::parse("用户@例子.中国").unwrap().needs_smtputf8());
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for bad in [
            "",
            "a",
            "a@",
            "@b.c",
            "a b@c.d",
            "a@b\r\nRCPT TO:<x@y.z>",
            "a@[127.0.0.1]",
            "<a@b.c>",
            "a@b@c..d",
        ] {
            assert_eq!(Address::parse(bad), Err(InvalidAddress), "{bad:?}");
        }
        assert!(Address::parse(&format!("{}@b.c", "x".repeat(65))).is_err());
    }

    #[test]
    fn mailbox_forms() {
        for (text, name) in [
            ("a@b.c", None),
            ("<a@b.c>", None),
            ("王伟 <a@b.c>", Some("王伟")),
            ("\"Wei, W.\" <a@b.c>", Some("Wei, W.")),
        ] {
            let mailbox = Mailbox::parse(text).unwrap();
            assert_eq!((mailbox.name.as_deref(), mailbox.address.as_str()), (name, "a@b.c"), "{text}");
        }
        for bad in ["x, y <a@b.c>", "\"open <a@b.c>", "n <a@b.c", "a\nb <a@b.c>", "<a@b.c> <d@e.f>"] {
            assert_eq!(Mailbox::parse(bad), Err(InvalidAddress), "{bad:?}");
        }
    }
}
