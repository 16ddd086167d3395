//! One connection of the relay: the dialogue.

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use super::journal::{Message, message_id};
use super::line::{Io, Line};
use super::script::{Afterwards, Order, Step, Tls, text_for};
use super::{Shared, State};

/// How a step of the dialogue goes on.
enum Then {
    Next,
    /// Send what has been said, then close.
    End,
}

pub(super) struct Session {
    shared: Arc<Shared>,
    line: Line,
    id: u64,
    is_protected: bool,
    login: Option<String>,
    /// Messages that were begun.
    messages: u32,
    envelope: Option<Envelope>,
}

#[derive(Default)]
struct Envelope {
    from: String,
    parameters: String,
    to: Vec<String>,
    order: Option<Order>,
}

impl Session {
    pub(super) async fn serve(io: Box<dyn Io>, shared: Arc<Shared>, id: u64) -> io::Result<()> {
        let (tls, greeting, is_crowded) = shared.with(|state| {
            let is_crowded = state.script.max_connections.is_some_and(|max| state.counts.open > max);
            (state.script.tls, state.script.greeting.clone(), is_crowded)
        });
        let io = if tls == Tls::Implicit { protect(io, &shared).await? } else { io };
        let mut session = Self {
            line: Line::new(io, Arc::clone(&shared)),
            shared,
            id,
            is_protected: tls == Tls::Implicit,
            login: None,
            messages: 0,
            envelope: None,
        };
        let greeting = if is_crowded {
            "421 4.7.0 Too many connections from your address".to_owned()
        } else {
            greeting.unwrap_or_else(|| "220 relay.example ESMTP".into())
        };
        session.line.say(&greeting);
        if !greeting.starts_with("220") {
            return session.line.flush().await;
        }
        session.talk().await
    }

    async fn talk(mut self) -> io::Result<()> {
        loop {
            let command = tokio::select! {
                biased;
                command = self.line.command() => Some(command?),
                () = self.shared.stopped() => None,
            };
            let Some(command) = command else {
                self.line.say("421 4.3.2 Service shutting down");
                return self.line.flush().await;
            };
            let Some(command) = command else { return Ok(()) };
            if command.eq_ignore_ascii_case("STARTTLS") && self.offers_starttls() {
                self = self.starttls().await?;
                continue;
            }
            match self.obey(&command).await? {
                Then::Next => {}
                Then::End => return self.line.flush().await,
            }
        }
    }

    async fn obey(&mut self, command: &str) -> io::Result<Then> {
        let verb = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" => self.hello(),
            "AUTH" => return self.auth(command).await,
            "MAIL" => return Ok(self.mail(command)),
            "RCPT" => return Ok(self.rcpt(command)),
            "DATA" => return self.data().await,
            "RSET" => {
                self.envelope = None;
                self.line.reply(250, &["2.0.0 Reset"]);
            }
            "NOOP" => self.line.reply(250, &["2.0.0 Ok"]),
            "QUIT" => {
                self.line.reply(221, &["2.0.0 Bye"]);
                return Ok(Then::End);
            }
            _ => self.line.reply(500, &["5.5.2 Command not known"]),
        }
        Ok(Then::Next)
    }

    fn hello(&mut self) {
        let script = self.shared.script();
        if let Some(refusal) = &script.ehlo_refusal {
            return self.line.say(refusal);
        }
        let mut lines = vec!["relay.example greets you".to_owned(), "8BITMIME".into()];
        if script.pipelining {
            lines.push("PIPELINING".into());
        }
        if script.smtputf8 {
            lines.push("SMTPUTF8".into());
        }
        if let Some(size) = script.size {
            lines.push(format!("SIZE {size}"));
        }
        if self.offers_starttls() {
            lines.push("STARTTLS".into());
        }
        if let Some(login) = &script.login
            && (self.is_protected || script.tls != Tls::Required)
        {
            lines.push(format!("AUTH {}", login.mechanisms));
        }
        lines.push("ENHANCEDSTATUSCODES".into());
        if script.form.lowercase {
            lines.iter_mut().skip(1).for_each(|line| line.make_ascii_lowercase());
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.line.reply(250, &lines);
    }

    fn offers_starttls(&self) -> bool {
        !self.is_protected && matches!(self.shared.script().tls, Tls::Offered | Tls::Required)
    }

    async fn starttls(mut self) -> io::Result<Self> {
        self.line.reply(220, &["2.0.0 Go ahead"]);
        if let Some(injected) = self.shared.script().injected {
            self.line.say(&injected);
        }
        self.line.flush().await?;
        let (io, is_clean) = self.line.into_io();
        if !is_clean {
            return Err(io::Error::other("the client sent commands behind STARTTLS"));
        }
        Ok(Self {
            line: Line::new(protect(io, &self.shared).await?, Arc::clone(&self.shared)),
            is_protected: true,
            login: None,
            envelope: None,
            ..self
        })
    }

    async fn auth(&mut self, command: &str) -> io::Result<Then> {
        let script = self.shared.script();
        let Some(login) = script.login else {
            self.line.reply(503, &["5.5.1 No login here"]);
            return Ok(Then::Next);
        };
        if script.tls == Tls::Required && !self.is_protected {
            self.line.reply(538, &["5.7.11 Encryption required"]);
            return Ok(Then::Next);
        }
        let words: Vec<&str> = command.split(' ').collect();
        let mechanism = words.get(1).unwrap_or(&"").to_ascii_uppercase();
        if !login.mechanisms.split(' ').any(|known| known == mechanism) {
            self.line.reply(504, &["5.5.4 Mechanism not known"]);
            return Ok(Then::Next);
        }
        let given = match mechanism.as_str() {
            "PLAIN" => match words.get(2) {
                Some(initial) => plain(initial),
                None => self.challenge("").await?.and_then(|answer| plain(&answer)),
            },
            "LOGIN" => {
                let user = self.challenge("Username:").await?;
                let pass = self.challenge("Password:").await?;
                user.zip(pass).and_then(|(user, pass)| Some((decoded(&user)?, decoded(&pass)?)))
            }
            _ => None,
        };
        let is_turned_away = self.shared.with(|state| {
            let left = &mut state.script.login_refusals;
            let refuses = *left > 0;
            if *left != u32::MAX {
                *left = left.saturating_sub(1);
            }
            refuses
        });
        let is_right = given == Some((login.user.clone(), login.pass));
        if is_right && !is_turned_away {
            self.login = Some(login.user);
            self.line.reply(235, &["2.7.0 Welcome"]);
        } else {
            self.line.say(&script.login_refusal);
        }
        Ok(Then::Next)
    }

    async fn challenge(&mut self, text: &str) -> io::Result<Option<String>> {
        self.line.reply(334, &[&BASE64.encode(text)]);
        self.line.answer().await
    }

    fn mail(&mut self, command: &str) -> Then {
        let script = self.shared.script();
        if script.messages_per_connection.is_some_and(|max| self.messages >= max) {
            self.line.say(&script.limit_reply);
            return Then::End;
        }
        if script.tls == Tls::Required && !self.is_protected {
            self.line.reply(530, &["5.7.0 Must issue STARTTLS first"]);
            return Then::Next;
        }
        if script.login.is_some() && self.login.is_none() {
            self.line.reply(530, &["5.7.0 Authentication required"]);
            return Then::Next;
        }
        if self.envelope.is_some() {
            self.line.reply(503, &["5.5.1 A transaction is under way"]);
            return Then::Next;
        }
        if let Some(refusal) = &script.sender_refusal {
            self.line.say(refusal);
            return Then::Next;
        }
        let Some((from, parameters)) = path(command) else {
            self.line.reply(501, &["5.5.4 MAIL FROM:<address>"]);
            return Then::Next;
        };
        for parameter in parameters.split_ascii_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let size = value.parse().unwrap_or(0);
            match name {
                "SIZE" if script.size.is_some_and(|max| size > max) => {
                    self.line.reply(552, &["5.3.4 Message too large"]);
                    return Then::Next;
                }
                "SIZE" if script.size.is_some() => {}
                "SMTPUTF8" if script.smtputf8 => {}
                "BODY" => {}
                _ => {
                    self.line.reply(555, &["5.5.4 Parameter not known"]);
                    return Then::Next;
                }
            }
        }
        self.messages += 1;
        self.envelope = Some(Envelope { from, parameters, ..Envelope::default() });
        self.line.reply(250, &["2.1.0 Ok"]);
        if script.answers_mail_twice {
            self.line.reply(250, &["2.1.0 Ok"]);
        }
        Then::Next
    }

    fn rcpt(&mut self, command: &str) -> Then {
        let Some(envelope) = &mut self.envelope else {
            self.line.reply(503, &["5.5.1 MAIL first"]);
            return Then::Next;
        };
        let Some((to, _)) = path(command) else {
            self.line.reply(501, &["5.5.4 RCPT TO:<address>"]);
            return Then::Next;
        };
        let local = to.rsplit_once('@').map_or(to.as_str(), |(local, _)| local);
        let order = Order::of(local);
        match &order {
            Order::Cut(Step::Rcpt) => return Then::End,
            Order::Text(name) => {
                let script = self.shared.script();
                let text = script.texts.iter().find(|(known, _)| known == name);
                self.line.say(text.map_or("550 no such text", |(_, text)| text.as_str()));
            }
            Order::Refuse { at: Step::Rcpt, code, times }
                if self.shared.with(|state| refuses(state, &to, *times)) =>
            {
                self.line.reply(*code, &[text_for(*code)]);
                if *code == 421 {
                    return Then::End;
                }
            }
            _ => {
                envelope.to.push(to);
                envelope.order = Some(order);
                self.line.reply(250, &["2.1.5 Ok"]);
            }
        }
        Then::Next
    }

    async fn data(&mut self) -> io::Result<Then> {
        let script = self.shared.script();
        let Some(mut envelope) = self.envelope.take() else {
            self.line.reply(503, &["5.5.1 MAIL first"]);
            return Ok(Then::Next);
        };
        if envelope.to.is_empty() {
            if !script.data_regardless {
                self.line.reply(554, &["5.5.1 No valid recipients"]);
                self.envelope = Some(envelope);
                return Ok(Then::Next);
            }
            self.line.reply(354, &["Go ahead"]);
            if self.line.content().await?.is_none() || script.lone_dot_cut {
                return Ok(Then::End);
            }
            self.line.reply(554, &["5.5.1 No valid recipients"]);
            return Ok(Then::Next);
        }
        if let Some(reply) = &script.data_reply {
            self.line.say(reply);
            self.envelope = Some(envelope);
            return Ok(Then::Next);
        }
        let order = envelope.order.take().unwrap_or(Order::Accept);
        match &order {
            Order::Cut(Step::Data) => return Ok(Then::End),
            Order::Refuse { at: Step::Data, code, times }
                if self.shared.with(|state| refuses(state, &envelope.to[0], *times)) =>
            {
                self.line.reply(*code, &[text_for(*code)]);
                self.envelope = Some(envelope);
                return Ok(Then::Next);
            }
            _ => {}
        }
        self.line.reply(354, &["Go ahead"]);
        self.content(envelope, order).await
    }

    /// Reads the content, and does to it what the recipient asks for.
    async fn content(&mut self, envelope: Envelope, order: Order) -> io::Result<Then> {
        match order {
            Order::CutAfterGo => return Ok(Then::End),
            Order::CutInContent => {
                self.line.some_content().await?;
                return Ok(Then::End);
            }
            Order::RefuseInContent(code) => {
                self.line.some_content().await?;
                self.line.reply(code, &[text_for(code)]);
                return Ok(Then::End);
            }
            Order::Stall => {
                self.line.some_content().await?;
                self.shared.stopped().await;
                return Ok(Then::End);
            }
            _ => {}
        }
        let Some(source) = self.line.content().await? else {
            return Ok(Then::End);
        };
        match order {
            Order::Cut(Step::Dot) => return Ok(Then::End),
            Order::Mute => {
                self.shared.stopped().await;
                return Ok(Then::End);
            }
            Order::Garble => {
                self.line.say("is this a reply?");
                return Ok(Then::Next);
            }
            Order::Refuse { at: Step::Dot, code, times }
                if self.shared.with(|state| refuses(state, &envelope.to[0], times)) =>
            {
                self.line.reply(code, &[text_for(code)]);
                return Ok(if code == 421 { Then::End } else { Then::Next });
            }
            Order::Slow(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let message_id = message_id(&source);
        self.shared.take(Message {
            connection: self.id,
            from: envelope.from,
            parameters: envelope.parameters,
            to: envelope.to,
            source,
            message_id,
            login: self.login.clone(),
            is_protected: self.is_protected,
        });
        if order == Order::CutAfterTaking {
            return Ok(Then::End);
        }
        self.line.reply(250, &["2.0.0 Taken"]);
        Ok(match self.shared.script().afterwards {
            Afterwards::Stay => Then::Next,
            Afterwards::Close => Then::End,
            Afterwards::SayAndClose => {
                self.line.flush().await?;
                self.line.reply(421, &["4.4.2 Idle too long"]);
                Then::End
            }
        })
    }
}

async fn protect(io: Box<dyn Io>, shared: &Shared) -> io::Result<Box<dyn Io>> {
    let config = shared.tls.clone().ok_or_else(|| io::Error::other("the relay was started without TLS"))?;
    let mut tls = TlsAcceptor::from(config).accept(io).await?;
    tls.flush().await?;
    if tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        shared.count(|counts| counts.resumed += 1);
    }
    Ok(Box::new(tls))
}

/// The path and the parameters of MAIL and RCPT.
fn path(command: &str) -> Option<(String, String)> {
    let (_, rest) = command.split_once(":<")?;
    let (address, parameters) = rest.split_once('>')?;
    Some((address.to_owned(), parameters.trim().to_owned()))
}

/// Whether a recipient that is to be refused so many times still is.
fn refuses(state: &mut State, to: &str, times: u32) -> bool {
    let refused = state.refused.entry(to.to_owned()).or_default();
    if *refused < times {
        *refused += 1;
        return true;
    }
    false
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(text).ok()?).ok()
}

/// User and password of AUTH PLAIN (RFC 4616).
fn plain(text: &str) -> Option<(String, String)> {
    let decoded = decoded(text)?;
    let mut parts = decoded.split('\0').skip(1);
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}
