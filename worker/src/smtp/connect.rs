//! From a name to a connection that is logged in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Auth, Starttls};
use lettre::transport::smtp::extension::ClientId;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use shared::classify::{Cause, Failure};
use shared::reply::{Reply, Stage, masked};
use shared::settings::{Smtp, Tls};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::{Connection, Terms};
use super::ehlo::Capabilities;
use super::limit::MessageLimit;
use super::tls;
use super::wire::{self, Handle, Socket};

/// The port of implicit TLS (RFC 8314).
const SUBMISSIONS: u16 = 465;

/// How many challenges a login may take: LOGIN takes two.
const CHALLENGES: usize = 4;

/// Opens connections to one relay. Cheap to clone; one TLS configuration for all, so that sessions resume.
#[derive(Clone)]
pub struct Connector {
    relay: Arc<Smtp>,
    tls: Option<Arc<ClientConfig>>,
    /// The name in EHLO; none: the connection's own address.
    hello: Option<String>,
    learned: Arc<MessageLimit>,
}

/// A relay's settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct ConnectorError {
    /// The setting, as an environment variable.
    pub setting: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// A session that is being made.
struct Session {
    smtp: AsyncSmtpConnection,
    handle: Handle,
    can: Capabilities,
}

impl Connector {
    /// A connector for a relay.
    ///
    /// # Errors
    /// When `smtp.ca_file` cannot be read or holds no certificate.
    pub fn try_new(relay: Arc<Smtp>) -> Result<Self, ConnectorError> {
        let tls =
            if relay.tls == Tls::None { None } else { Some(tls::configuration(relay.ca_file.as_deref())?) };
        let hello = relay.helo_name.clone().or_else(host_name);
        Ok(Self { relay, tls, hello, learned: Arc::new(MessageLimit::unknown()) })
    }

    /// Connects, greets, protects and logs in. Each stage has its own deadline.
    ///
    /// # Errors
    /// The [`Failure`] with its stage.
    pub async fn open(&self) -> Result<Connection, Failure> {
        let (tcp, deadline) = self.connect().await?;
        let is_loopback = tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let hello = match &self.hello {
            Some(name) => ClientId::Domain(name.clone()),
            None => tcp.local_addr().map_or_else(|_| ClientId::default(), |own| literal(own.ip())),
        };
        let implicit = self.relay.tls == Tls::Implicit
            || (self.relay.tls == Tls::Auto && self.relay.port == SUBMISSIONS);
        let mut is_protected = implicit;
        let mut session = if implicit {
            let tls = self.handshake(tcp, deadline).await?;
            self.greet(Socket::Tls(Box::new(tls)), &hello, false).await?
        } else {
            self.greet(Socket::Plain(tcp), &hello, false).await?
        };
        let wants_tls = match self.relay.tls {
            Tls::Auto => session.can.starttls,
            Tls::Starttls => true,
            Tls::Implicit | Tls::None => false,
        };
        if wants_tls && !implicit {
            session = self.starttls(session, &hello).await?;
            is_protected = true;
        }
        if let Some(credentials) = &self.relay.credentials {
            if !is_protected && !is_loopback && self.relay.tls != Tls::None {
                return Err(unsupported(Stage::Auth, "no TLS: the password is not sent in the clear"));
            }
            let login =
                Credentials::new(credentials.user.clone(), credentials.pass.expose_secret().to_owned());
            self.login(&mut session, &login).await?;
        }
        let terms = Terms {
            command: self.relay.command_timeout,
            data: self.relay.data_timeout,
            max_messages: self.relay.max_messages_per_connection,
            learned: Arc::clone(&self.learned),
        };
        Ok(Connection::new(session.smtp, session.handle, session.can, terms))
    }

    /// Opens a connection and closes it: whether the relay can be used.
    ///
    /// # Errors
    /// As [`Connector::open`].
    pub async fn probe(&self) -> Result<(), Failure> {
        self.open().await?.quit().await;
        Ok(())
    }

    /// Tries the host's addresses in turn: a dead one leaves time for the others.
    async fn connect(&self) -> Result<(TcpStream, Instant), Failure> {
        let deadline = Instant::now() + self.relay.connect_timeout;
        let place = (self.relay.host.as_str(), self.relay.port);
        let found = timeout_at(deadline, tokio::net::lookup_host(place)).await;
        let addresses: Vec<_> = match found {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(connect_failure(Cause::Closed, format!("name lookup: {error}"))),
            Err(_) => {
                return Err(connect_failure(Cause::TimedOut, "name lookup took too long".into()));
            }
        };
        let mut failure = connect_failure(Cause::Closed, "the name has no address".into());
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
            left = left.saturating_sub(1);
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    // Without it a message that goes out in two writes waits for a delayed acknowledgement.
                    tcp.set_nodelay(true).map_err(|e| connect_failure(Cause::Closed, e.to_string()))?;
                    tracing::debug!(stage = %Stage::Connect, %address, "connected");
                    return Ok((tcp, deadline));
                }
                Ok(Err(error)) => failure = connect_failure(Cause::Closed, format!("{address}: {error}")),
                Err(_) => {
                    let detail = format!("{address}: no answer within {:.1} s", share.as_secs_f64());
                    failure = connect_failure(Cause::TimedOut, detail);
                }
            }
        }
        Err(failure)
    }

    async fn handshake(&self, tcp: TcpStream, deadline: Instant) -> Result<TlsStream<TcpStream>, Failure> {
        let failed = |detail: String| Failure { stage: Stage::Tls, cause: Cause::Tls, stale: false, detail };
        let config = self.tls.clone().ok_or_else(|| failed("TLS is switched off".into()))?;
        let name =
            ServerName::try_from(self.relay.host.clone()).map_err(|error| failed(error.to_string()))?;
        match timeout_at(deadline, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(error)) => Err(failed(format!("TLS handshake: {error}"))),
            Err(_) => Err(failed("TLS handshake took too long".into())),
        }
    }

    /// Reads the greeting, unless that was done before TLS, and says EHLO.
    async fn greet(&self, socket: Socket, hello: &ClientId, greeted: bool) -> Result<Session, Failure> {
        let (wire, handle) = wire::over(socket, self.relay.command_timeout, greeted);
        let made = AsyncSmtpConnection::connect_with_transport(Box::new(wire), hello).await;
        let mut stage = if greeted { Stage::Ehlo } else { Stage::Greeting };
        let mut last = None;
        while let Some(reply) = handle.heard() {
            if stage == Stage::Greeting && reply.is_positive() {
                stage = Stage::Ehlo;
            } else {
                last = Some(reply);
                break;
            }
        }
        if let Some(reply) = &last {
            debug_reply(stage, reply);
        }
        match (made, last) {
            (Ok(smtp), Some(reply)) if reply.is_positive() => {
                Ok(Session { smtp, can: Capabilities::parse(&reply.text), handle })
            }
            (_, reply) => Err(failure(&handle, stage, reply)),
        }
    }

    async fn starttls(&self, mut session: Session, hello: &ClientId) -> Result<Session, Failure> {
        if !session.can.starttls {
            let detail = "the relay offers no STARTTLS, and smtp.tls requires it";
            return Err(Failure {
                stage: Stage::Tls,
                cause: Cause::Tls,
                stale: false,
                detail: detail.into(),
            });
        }
        // What lettre makes of the answer decides nothing: the handle has it.
        session.handle.be_patient(self.relay.command_timeout);
        drop(session.smtp.command(Starttls).await);
        match hear(&mut session.smtp, &session.handle, Stage::Tls).await {
            Some(reply) if reply.code == 220 => {}
            reply => return Err(failure(&session.handle, Stage::Tls, reply)),
        }
        let Some(tcp) = session.handle.take_plain() else {
            let detail = "the relay sent more than its answer to STARTTLS";
            return Err(Failure {
                stage: Stage::Tls,
                cause: Cause::Garbled,
                stale: false,
                detail: detail.into(),
            });
        };
        let tls = self.handshake(tcp, Instant::now() + self.relay.connect_timeout).await?;
        self.greet(Socket::Tls(Box::new(tls)), hello, true).await
    }

    /// Logs in with the best mechanism that both know; a refusal is final, no other is tried.
    async fn login(&self, session: &mut Session, credentials: &Credentials) -> Result<(), Failure> {
        let mechanism = match session.can {
            Capabilities { auth_plain: true, .. } => Mechanism::Plain,
            Capabilities { auth_login: true, .. } => Mechanism::Login,
            _ => {
                return Err(unsupported(Stage::Auth, "the relay offers neither AUTH PLAIN nor AUTH LOGIN"));
            }
        };
        let handle = session.handle.clone();
        let odd = |_| unsupported(Stage::Auth, "the relay's challenge cannot be answered");
        let mut command = Auth::new(mechanism, credentials.clone(), None).map_err(odd)?;
        for _ in 0..CHALLENGES {
            tracing::debug!(stage = %Stage::Auth, "AUTH, its payload not shown");
            handle.be_patient(self.relay.command_timeout);
            let challenge = session.smtp.command(command).await;
            match (hear(&mut session.smtp, &handle, Stage::Auth).await, challenge) {
                (Some(reply), _) if reply.code == 235 => return Ok(()),
                (Some(reply), Ok(challenge)) if reply.code == 334 => {
                    command =
                        Auth::new_from_response(mechanism, credentials.clone(), &challenge).map_err(odd)?;
                }
                (reply, _) => return Err(failure(&handle, Stage::Auth, reply)),
            }
        }
        Err(unsupported(Stage::Auth, "the relay asks on and on"))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("relay", &self.relay).finish_non_exhaustive()
    }
}

/// The host's name, where it is one that others know: a bare word such as a container's is refused by many servers.
fn host_name() -> Option<String> {
    match ClientId::default() {
        ClientId::Domain(name) if name.trim_matches('.').contains('.') => Some(name),
        _ => None,
    }
}

/// An address literal, which stands for a host without a name (RFC 5321 §4.1.3 and §4.1.4).
fn literal(own: IpAddr) -> ClientId {
    match own.to_canonical() {
        IpAddr::V4(own) => ClientId::Ipv4(own),
        IpAddr::V6(own) => ClientId::Ipv6(own),
    }
}

/// The next reply; none where the stream has ended. lettre's reading of it decides nothing, and lettre may be some
/// lines behind where it did not like one.
pub(super) async fn hear(smtp: &mut AsyncSmtpConnection, handle: &Handle, stage: Stage) -> Option<Reply> {
    loop {
        if let Some(reply) = handle.heard() {
            debug_reply(stage, &reply);
            return Some(reply);
        }
        if handle.broken().is_some() {
            return None;
        }
        drop(smtp.read_response().await);
    }
}

fn debug_reply(stage: Stage, reply: &Reply) {
    tracing::debug!(%stage, code = reply.code, text = %masked(&reply.text), "the relay answers");
}

/// A step that brought this reply, or none.
pub(super) fn failure(handle: &Handle, stage: Stage, reply: Option<Reply>) -> Failure {
    let (cause, detail) = match (reply, handle.broken()) {
        (Some(reply), _) => (Cause::Reply(reply), String::new()),
        (None, Some(broken)) => (broken.cause, broken.detail),
        (None, None) => (Cause::Closed, "the connection broke".into()),
    };
    Failure { stage, cause, stale: false, detail }
}

pub(super) fn unsupported(stage: Stage, detail: &str) -> Failure {
    Failure { stage, cause: Cause::Unsupported, stale: false, detail: detail.into() }
}

fn connect_failure(cause: Cause, detail: String) -> Failure {
    Failure { stage: Stage::Connect, cause, stale: false, detail }
}

/// How long the server may take to answer QUIT.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
