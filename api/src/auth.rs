//! Who may call: API keys with scopes, or only this machine.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::Method;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use shared::settings::{Auth, Scope};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::problem::{Code, Problem};

/// The keys, as digests: comparing them tells nothing of a key.
pub(crate) struct Keys {
    known: Vec<Known>,
    /// Who calls where no key is asked for.
    anyone: Option<Caller>,
    /// Only requests to a loopback name are answered.
    loopback_only: bool,
}

struct Known {
    name: Arc<str>,
    digest: [u8; 32],
    scopes: Vec<Scope>,
}

/// The name of the key that a request came with; empty where none is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller(pub(crate) Arc<str>);

impl Keys {
    pub(crate) fn new(auth: &Auth) -> Self {
        let known: Vec<Known> = auth
            .keys
            .iter()
            .map(|key| Known {
                name: key.name.as_str().into(),
                digest: Sha256::digest(key.key.expose_secret()).into(),
                scopes: key.scopes.clone(),
            })
            .collect();
        let anyone = (known.is_empty() || auth.disabled).then(|| Caller("".into()));
        // A page in a browser on this machine can reach a loopback address by a name of its own: only loopback names
        // are answered, so that it gets nowhere (DNS rebinding).
        Self { anyone, loopback_only: known.is_empty() && !auth.disabled, known }
    }

    /// Whether a request to this `Host`, from a page of this `Origin`, is answered.
    pub(crate) fn check_host(&self, host: &str, origin: Option<&str>) -> Result<(), Problem> {
        if !self.loopback_only {
            return Ok(());
        }
        if !is_loopback_name(host) {
            let detail = "No API keys are set, so that only requests to a loopback name (localhost, 127.0.0.1) are \
                          answered.";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        // A page from elsewhere may post to a loopback name without asking first (a "simple" request): without keys
        // there is nothing that it would have to know.
        let is_own =
            |origin: &str| origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host));
        if origin.is_some_and(|origin| !is_own(origin)) {
            let detail =
                "No API keys are set, so that requests from pages of other origins are not answered.";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        Ok(())
    }

    /// The caller, where its key has the scope.
    pub(crate) fn check(&self, authorization: Option<&str>, scope: Scope) -> Result<Caller, Problem> {
        if let Some(anyone) = &self.anyone {
            return Ok(anyone.clone());
        }
        let unauthorized = || Problem::new(Code::Unauthorized, "Send Authorization: Bearer <key>.");
        let (scheme, key) = authorization.and_then(|text| text.split_once(' ')).ok_or_else(unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        let digest: [u8; 32] = Sha256::digest(key.trim()).into();
        // All keys are compared, so that the time does not tell which one was near.
        let mut found = u64::MAX;
        for (n, known) in (0_u64..).zip(&self.known) {
            let same: Choice = known.digest.ct_eq(&digest);
            found.conditional_assign(&n, same);
        }
        let known = usize::try_from(found).ok().and_then(|n| self.known.get(n)).ok_or_else(unauthorized)?;
        if known.scopes.contains(&scope) {
            return Ok(Caller(Arc::clone(&known.name)));
        }
        let needed = match scope {
            Scope::Send => "send",
            Scope::Read => "read",
            Scope::Admin => "admin",
        };
        Err(Problem::new(Code::Forbidden, format!("The key lacks the scope {needed}.")))
    }
}

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No key.
    Open,
    /// `send` to post, `read` to look.
    Sending,
    /// `read` to look, `admin` for all else.
    Operating,
}

impl Access {
    /// The scope that a request needs. None: no key is needed.
    pub(crate) fn scope(self, method: &Method) -> Option<Scope> {
        match self {
            Self::Open => None,
            _ if method == Method::GET || method == Method::HEAD => Some(Scope::Read),
            Self::Sending if method == Method::POST => Some(Scope::Send),
            Self::Sending | Self::Operating => Some(Scope::Admin),
        }
    }
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.');
    let is_local = |label: &str| label.eq_ignore_ascii_case("localhost");
    is_local(name)
        || name.rsplit_once('.').is_some_and(|(_, last)| is_local(last))
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use shared::settings::ApiKey;

    use super::*;

    fn keys(keys: &[(&str, &[Scope])]) -> Keys {
        let keys = keys.iter().map(|(key, scopes)| ApiKey {
            name: format!("name of {key}"),
            key: (*key).to_owned().into(),
            scopes: scopes.to_vec(),
        });
        Keys::new(&Auth { keys: keys.collect(), disabled: false })
    }

    #[test]
    fn no_scope_implies_another() {
        let keys = keys(&[("s", &[Scope::Send]), ("ra", &[Scope::Read, Scope::Admin])]);
        for (key, scope, ok) in [
            ("Bearer s", Scope::Send, true),
            ("bearer s", Scope::Send, true),
            ("Bearer s", Scope::Read, false),
            ("Bearer ra", Scope::Admin, true),
            ("Bearer ra", Scope::Send, false),
            ("Bearer x", Scope::Send, false),
            ("Basic s", Scope::Send, false),
            ("s", Scope::Send, false),
        ] {
            assert_eq!(keys.check(Some(key), scope).is_ok(), ok, "{key} {scope:?}");
        }
        assert!(keys.check(None, Scope::Send).is_err());
        assert_eq!(keys.check(Some("Bearer ra"), Scope::Read).unwrap().0.as_ref(), "name of ra");
    }

    #[test]
    fn without_keys_only_loopback_names_are_answered() {
        let open = keys(&[]);
        for (host, ok) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("127.1.2.3", true),
            ("[::1]:8080", true),
            ("evil.example.com", false),
            ("127.0.0.1.evil.example.com", false),
            ("192.168.1.1", false),
            ("", false),
        ] {
            assert_eq!(open.check_host(host, None).is_ok(), ok, "{host}");
        }
        assert!(keys(&[("s", &[Scope::Send])]).check_host("mail.example.com", None).is_ok());
    }

    #[test]
    fn without_keys_pages_of_other_origins_are_not_answered() {
        let open = keys(&[]);
        for (origin, ok) in [
            ("http://localhost:8080", true),
            ("http://LOCALHOST:8080", true),
            ("http://localhost:3000", false),
            ("https://evil.example.com", false),
            ("null", false),
        ] {
            assert_eq!(open.check_host("localhost:8080", Some(origin)).is_ok(), ok, "{origin}");
        }
        let keys = keys(&[("s", &[Scope::Send])]);
        assert!(keys.check_host("mail.example.com", Some("https://app.example.com")).is_ok());
    }

    #[test]
    fn scope_follows_the_route_and_the_method() {
        for (access, method, scope) in [
            (Access::Open, Method::POST, None),
            (Access::Sending, Method::POST, Some(Scope::Send)),
            (Access::Sending, Method::GET, Some(Scope::Read)),
            (Access::Sending, Method::DELETE, Some(Scope::Admin)),
            (Access::Operating, Method::GET, Some(Scope::Read)),
            (Access::Operating, Method::HEAD, Some(Scope::Read)),
            (Access::Operating, Method::POST, Some(Scope::Admin)),
            (Access::Operating, Method::PATCH, Some(Scope::Admin)),
        ] {
            assert_eq!(access.scope(&method), scope, "{access:?} {method}");
        }
    }
}
