//! Asking a running program whether it lives: `GET /healthz`, by `--health` and by the program's own watchdog.
//!
//! It needs no shell and no other program, so that it works in an image that has neither.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::findings::Findings;
use crate::settings::Listen;

/// How long `--health` waits for the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// An API without keys answers to loopback names only.
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Asks the program that listens there. Without a time limit: the caller has one.
///
/// # Errors
/// When it cannot be reached, or answers anything but 200.
pub async fn ask(listens: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(reachable(listens)).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut answer).await?;
    if answer.ends_with(b" 200") {
        Ok(())
    } else {
        Err(io::Error::other(format!("answers {:?}", String::from_utf8_lossy(&answer))))
    }
}

/// What `--health` does: asks, prints what came of it; 0 where the program lives, else 1.
pub async fn report(listen: &Listen) -> ExitCode {
    let mut findings = Findings::default();
    let found = match timeout(PATIENCE, find(listen)).await {
        Ok(Ok(place)) => Ok(format!("{place} answers")),
        Ok(Err(error)) => Err(format!("{}:{}: {error}", listen.host, listen.port)),
        Err(_) => Err(format!("{}:{}: no answer in {} s", listen.host, listen.port, PATIENCE.as_secs())),
    };
    findings.note("health", found);
    findings.report()
}

async fn find(listen: &Listen) -> io::Result<SocketAddr> {
    if listen.port == 0 {
        return Err(io::Error::other("port 0 takes a free one: which, only the log says"));
    }
    let place = lookup_host((listen.host.trim_matches(['[', ']']), listen.port)).await?.next();
    let place = place.ok_or_else(|| io::Error::other("the name has no address"))?;
    ask(place).await.map(|()| place)
}

/// Who listens at every address of the machine is reached at the loopback.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listens.port())
}
