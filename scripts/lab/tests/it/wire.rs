//! The wire between two sockets.

use std::net::SocketAddr;
use std::time::Duration;

use lab::wire::{Mode, Plan, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// How long nothing must come, to say that nothing comes.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that gives back what it is given, and the end too.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
                writer.shutdown().await.ok();
            });
        }
    });
    addr
}

async fn wire(plan: Plan) -> (Wire, TcpStream) {
    let wire = Wire::start(([127, 0, 0, 1], 0).into(), echo().await, plan).await.unwrap();
    let client = TcpStream::connect(wire.addr()).await.unwrap();
    client.set_nodelay(true).unwrap();
    (wire, client)
}

async fn round(client: &mut TcpStream, what: &[u8]) -> Duration {
    let start = Instant::now();
    client.write_all(what).await.unwrap();
    let mut back = vec![0; what.len()];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(back, what);
    start.elapsed()
}

#[tokio::test]
async fn a_round_trip_takes_its_time_and_the_first_one_the_handshake_too() {
    let round_trip = Duration::from_millis(40);
    let (_wire, mut client) = wire(Plan { round_trip, ..Plan::default() }).await;
    assert!(round(&mut client, b"first").await >= round_trip * 2);
    assert!(round(&mut client, b"second").await >= round_trip);
}

#[tokio::test]
async fn what_is_said_without_waiting_shares_a_round_trip() {
    let round_trip = Duration::from_millis(100);
    let (_wire, mut client) = wire(Plan { round_trip, ..Plan::default() }).await;
    round(&mut client, b"handshake").await;
    let start = Instant::now();
    for _ in 0..50 {
        client.write_all(b"x").await.unwrap();
        tokio::task::yield_now().await;
    }
    client.read_exact(&mut [0; 50]).await.unwrap();
    assert!(start.elapsed() < round_trip * 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn bytes_and_the_end_pass_unchanged() {
    let (wire, client) = wire(Plan::default()).await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let (mut reader, mut writer) = client.into_split();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    writing.await.unwrap();
    assert!(back == expected, "{} bytes came back", back.len());
    assert_eq!((wire.counts().bytes_there, wire.counts().bytes_back), (1_000_000, 1_000_000));
}

#[tokio::test]
async fn a_narrow_wire_passes_no_more_than_its_rate() {
    let (_wire, mut client) = wire(Plan { bytes_per_second: Some(100_000), ..Plan::default() }).await;
    let took = round(&mut client, &b"x".repeat(30_000)).await;
    assert!(took >= Duration::from_millis(250), "{took:?}");
}

#[tokio::test]
async fn a_cut_resets_the_connection_and_new_ones_pass() {
    let (wire, mut client) = wire(Plan::default()).await;
    round(&mut client, b"before").await;
    wire.cut();
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut next = TcpStream::connect(wire.addr()).await.unwrap();
    round(&mut next, b"after").await;
}

#[tokio::test]
async fn a_black_hole_holds_back_what_was_said_until_things_flow_again() {
    let (wire, mut client) = wire(Plan::default()).await;
    round(&mut client, b"before").await;
    wire.set(Mode::BlackHole);
    client.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    let came = tokio::time::timeout(SILENCE, client.read_exact(&mut back)).await;
    assert!(came.is_err(), "{came:?}");
    wire.set(Mode::Flow);
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn a_wire_that_refuses_resets_new_connections_only() {
    let (wire, mut open) = wire(Plan::default()).await;
    round(&mut open, b"before").await;
    wire.set(Mode::Refuse);
    let mut next = TcpStream::connect(wire.addr()).await.unwrap();
    let error = next.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    round(&mut open, b"goes on").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_resets_the_client() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wire = Wire::start(([127, 0, 0, 1], 0).into(), nobody, Plan::default()).await.unwrap();
    let mut client = TcpStream::connect(wire.addr()).await.unwrap();
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
