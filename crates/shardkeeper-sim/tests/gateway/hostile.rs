//! Clients that break the rules of WebSocket or HTTP, or use up resources: each gets the right error and
//! costs little.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shardkeeper_sim::{Action, Fault, MemoryStream, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::client_async;

use crate::support::*;

/// Sends these bytes, and returns all bytes that come until the other side ends the stream, within two
/// minutes.
async fn answer_to(simulator: &Simulator, bytes: &[u8]) -> String {
    let mut stream = simulator.connect();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(120), stream.read_to_end(&mut answer)).await.expect("it ends").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn post(simulator: &Simulator, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let mut stream = simulator.connect();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The stream below an open WebSocket, to send bytes that no library would send.
async fn below(simulator: &Simulator) -> MemoryStream {
    let url = "ws://gateway.sim.invalid/?v=10&encoding=json";
    client_async(url, simulator.connect()).await.unwrap().0.into_inner()
}

/// The close code that the stream ends with: its last frame, since nothing follows a close frame.
async fn close_code(stream: &mut MemoryStream) -> Option<u16> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let start = rest.windows(2).rposition(|head| head[0] == 0x88 && head[1] >= 2)?;
    Some(u16::from_be_bytes([rest[start + 2], rest[start + 3]]))
}

/// A frame from a client, with a mask that changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test(start_paused = true)]
async fn gw_013_what_is_no_websocket_is_closed_with_its_code_and_reported() {
    let unmasked = vec![0x81, 2, b'{', b'}'];
    for (what, bytes, code, rule) in [
        ("not masked", unmasked, 1002, "GW-013"),
        ("a reserved bit", frame(0xc1, b"{}"), 1002, "GW-013"),
        ("a reserved opcode", frame(0x83, b"{}"), 1002, "GW-013"),
        ("a ping in pieces", frame(0x09, b""), 1002, "GW-013"),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002, "GW-013"),
        ("two messages in one another", [frame(0x01, b"{"), frame(0x81, b"{}")].concat(), 1002, "GW-013"),
        ("a close frame of one byte", frame(0x88, b"x"), 1002, "GW-013"),
        ("text that is not UTF-8", frame(0x81, b"\xff\xfe"), 1007, "GW-013"),
        (
            "too large in pieces",
            [frame(0x01, &[b'x'; 16_000]), frame(0x00, &[b'x'; 16_000])].concat(),
            1009,
            "GW-026",
        ),
    ] {
        for logged_in in [false, true] {
            let simulator = simulator(|config| config.guilds = 0);
            let mut stream = below(&simulator).await;
            if logged_in {
                stream.write_all(&frame(0x81, identify(0, 1).to_string().as_bytes())).await.unwrap();
                simulator.wait_until(|report| report.ready_sessions == 1).await;
            }
            stream.write_all(&bytes).await.unwrap();
            assert_eq!(close_code(&mut stream).await, Some(code), "{what}");
            assert_eq!((rules(&simulator), advice(&simulator)), (vec![rule], vec![]), "{what}");
            drop(stream);
            simulator.wait_until(|report| report.ready_sessions == 0).await;
        }
    }
}

/// The head of a frame is enough: the simulator neither waits for the announced bytes nor stores them.
#[tokio::test(start_paused = true)]
async fn gw_026_a_frame_that_announces_too_much_is_not_awaited() {
    for announced in [16_385_u64, 15 << 20, u64::MAX >> 1] {
        let simulator = simulator(|_| {});
        let mut stream = below(&simulator).await;
        let mut head = vec![0x82, 0x80 | 127];
        head.extend_from_slice(&announced.to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        stream.write_all(&head).await.unwrap();
        assert_eq!(close_code(&mut stream).await, Some(1009), "{announced}");
        assert_eq!(rules(&simulator), ["GW-026"]);
    }
    // A payload that can be read is refused as by Discord.
    let simulator = simulator(|_| {});
    let mut stream = below(&simulator).await;
    stream.write_all(&frame(0x81, &[b'x'; 16_000])).await.unwrap();
    assert_eq!(close_code(&mut stream).await, Some(4002));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_let_go_when_it_is_closed() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut stream = below(&simulator).await;
    stream.write_all(&frame(0x81, identify(0, 1).to_string().as_bytes())).await.unwrap();
    simulator.wait_until(|report| report.ready_sessions == 1).await;
    // More than the stream can hold, and the client reads none of it.
    simulator.inject(0, Fault::Huge { bytes: 1 << 20 }).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.write_all(&frame(0x81, b"{}")).await.unwrap();
    timeout(Duration::from_secs(120), simulator.wait_until(|report| report.ready_sessions == 0))
        .await
        .expect("the connection does not stay");
    assert_eq!(rules(&simulator), ["GW-068"]);
}

#[tokio::test(start_paused = true)]
async fn half_a_request_does_not_stay() {
    let simulator = simulator(|config| config.max_connections = 1);
    for half in [
        "",
        "GET /api/v10/gateway HT",
        "GET /api/v10/gateway HTTP/1.1\r\nhost: x\r\nx-",
        // The request is answered, but the connection is kept alive.
        "GET /api/v10/gateway HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        answer_to(&simulator, half.as_bytes()).await;
    }
    for path in ["/sim/act", "/api/v10/channels/1/messages"] {
        let half = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bot sim-token\r\ncontent-length: 100\r\n\r\n{{"
        );
        assert!(answer_to(&simulator, half.as_bytes()).await.starts_with("HTTP/1.1 408"), "{path}");
    }
    // Each connection has released the only slot.
    assert_eq!(simulator.report().connections_refused, 0);
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_request_is_bounded() {
    let simulator = simulator(|_| {});
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(60_000));
    assert!(answer_to(&simulator, long.as_bytes()).await.starts_with("HTTP/1.1 4"));
}

#[tokio::test(start_paused = true)]
async fn connections_have_a_limit_and_give_their_place_back() {
    let simulator = simulator(|config| config.max_connections = 3);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let idle = (below(&simulator).await, simulator.connect());
    for refused in 1..=5 {
        assert_eq!(answer_to(&simulator, b"").await, "");
        assert_eq!(simulator.report().connections_refused, refused);
    }
    drop(idle);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut again = Client::connect(&simulator).await;
    again.until(10).await;
    assert_eq!(simulator.report().connections_refused, 5);
}

#[tokio::test(start_paused = true)]
async fn gw_013_a_handshake_is_what_rfc_6455_says() {
    let good = [
        "GET /?v=10&encoding=json HTTP/1.1",
        "host: x",
        "connection: keep-alive, Upgrade",
        "upgrade: WebSocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for (place, instead, status, more) in [
        (0, "POST /?v=10&encoding=json HTTP/1.1", "405", "allow: GET"),
        (0, "GET /?v=10&encoding=json HTTP/1.0", "400", ""),
        (2, "connection: close", "400", ""),
        (3, "upgrade: h2c", "400", ""),
        (3, "x: y", "400", ""),
        (4, "sec-websocket-version: 8", "426", "sec-websocket-version: 13"),
        (4, "x: y", "426", "sec-websocket-version: 13"),
        (5, "x: y", "400", ""),
        (5, "sec-websocket-key: short", "400", ""),
    ] {
        let simulator = simulator(|_| {});
        let mut lines = good;
        lines[place] = instead;
        let answer = answer_to(&simulator, format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await;
        let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        assert!(head.split(' ').nth(1) == Some(status), "{instead}: {answer}");
        assert!(head.contains(&more.to_ascii_lowercase()), "{instead}: {answer}");
        assert_eq!(rules(&simulator), ["GW-013"], "{instead}");
        assert_eq!(simulator.report().connections, 0, "{instead}");
    }
    let simulator = simulator(|_| {});
    let mut stream = simulator.connect();
    stream.write_all(format!("{}\r\n\r\n", good.join("\r\n")).as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
}

/// Other requests are answered while very many events are sent.
#[tokio::test(start_paused = true)]
async fn a_large_emit_lets_others_have_their_turn() {
    const EVENTS: u64 = 30_000;
    let simulator = simulator(|config| {
        config.guilds = 1;
        config.replay_limit = 100;
    });
    let mut shard = Client::connect(&simulator).await;
    shard.login(0, 2).await;
    let mut other = Client::connect(&simulator).await;
    other.until(10).await;
    let emitting = {
        let simulator = simulator.clone();
        let act = format!(r#"{{"do": "emit", "shard": 0, "count": {EVENTS}}}"#);
        tokio::spawn(async move { post(&simulator, "/sim/act", &act).await })
    };
    simulator.wait_until(|report| report.sent > 100).await;
    other.send(&heartbeat(Value::Null)).await;
    other.until(11).await;
    let sent = simulator.report().sent;
    assert!(sent < EVENTS, "{sent} before a heartbeat was answered");
    assert!(emitting.await.unwrap().starts_with("HTTP/1.1 204"));
    assert!(simulator.report().sent >= EVENTS);
    // Without a session, it fails at once, regardless of the number.
    let nobody = Action::Emit { shard: 9, count: usize::MAX, event: None, data: None };
    assert!(simulator.act(&nobody).is_err());
}

/// A report stays cheap after many Identify: the log is shared, and over HTTP it comes in pages.
#[tokio::test(start_paused = true)]
async fn the_report_of_many_identifies_is_shared_and_comes_in_pages() {
    let simulator = simulator(|config| {
        config.guilds = 0;
        (config.identify_total, config.identify_remaining) = (10_000, 10_000);
        config.timings.command_window = Duration::from_nanos(1);
    });
    let mut first = Client::connect(&simulator).await;
    first.login(0, 2).await;
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    for _ in 0..1_499 {
        tokio::time::advance(Duration::from_millis(1)).await;
        client.identify(1, 2).await;
        assert_eq!(client.until(9).await["d"], false, "too early each time");
    }
    let (one, other) = (simulator.report(), simulator.report());
    assert_eq!(one.identify_log.len(), 1_500);
    assert!(Arc::ptr_eq(&one.identify_log, &other.identify_log), "nothing is copied");
    for (query, from, length) in [
        ("", 500, 1_000),
        ("?identifies_from=0", 0, 1_000),
        ("?identifies_from=1000", 1_000, 500),
        ("?identifies_from=2000", 1_500, 0),
    ] {
        let answer = get(&simulator, &format!("/sim/report{query}"), "").await;
        let report: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(report["identify_log_from"], from);
        let log = report["identify_log"].as_array().unwrap();
        assert_eq!(log.len(), length, "{query}");
        assert!(log.first().is_none_or(|record| record["at_ms"] == one.identify_log[from].at_ms));
    }
}

/// What a client in another process received is unknown, but what was sent is known.
#[tokio::test(start_paused = true)]
async fn over_http_all_that_was_sent_counts_and_what_is_not_known_is_left_out() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    let created = client.until_event("GUILD_CREATE").await["d"].take();
    simulator.emit(0, 10);
    let report = || async {
        let answer = get(&simulator, "/sim/report", "").await;
        serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let unknown = report().await;
    assert_eq!((&unknown["sent"], unknown.get("delivery")), (&json!(12), None));
    simulator.observe(0, "GUILD_CREATE", created.to_string().as_bytes());
    let known = report().await["delivery"].take();
    assert_eq!((&known["sent"], &known["delivered"], &known["lost"]), (&json!(12), &json!(1), &json!(11)));
}
