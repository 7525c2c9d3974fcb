//! A client whose payloads the tests write.

use std::time::Duration;

use flate2::{Decompress, FlushDecompress};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use shardkeeper_sim::{MemoryStream, SimConfig, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) const INTENTS: u64 = 53_608_447;

pub(crate) fn simulator(configure: impl FnOnce(&mut SimConfig)) -> Simulator {
    let mut config = SimConfig::default();
    config.token = "sim-token".to_owned();
    configure(&mut config);
    Simulator::in_memory(config)
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MemoryStream>,
    pub(crate) inflate: Option<(Decompress, Vec<u8>)>,
}

impl Client {
    pub(crate) async fn connect(simulator: &Simulator) -> Self {
        Self::connect_to(simulator, "ws://gateway.sim.invalid/?v=10&encoding=json").await
    }

    pub(crate) async fn connect_to(simulator: &Simulator, url: &str) -> Self {
        let (socket, _) = client_async(url, simulator.connect()).await.unwrap();
        let inflate = url.contains("zlib-stream").then(|| (Decompress::new(true), Vec::new()));
        Self { socket, inflate }
    }

    pub(crate) async fn send(&mut self, payload: &Value) {
        self.socket.send(Message::text(payload.to_string())).await.unwrap();
    }

    /// The next payload, or the close code if the connection is closed.
    pub(crate) async fn next(&mut self) -> Result<Value, Option<u16>> {
        loop {
            let message =
                timeout(Duration::from_secs(3600), self.socket.next()).await.expect("something comes");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Binary(bytes))) => {
                    let (inflate, pending) =
                        self.inflate.as_mut().expect("only compressed payloads are binary");
                    pending.extend_from_slice(&bytes);
                    if pending.ends_with(&[0, 0, 0xff, 0xff]) {
                        let mut out = vec![0; 1 << 20];
                        let before = inflate.total_out();
                        inflate.decompress(pending, &mut out, FlushDecompress::Sync).unwrap();
                        pending.clear();
                        out.truncate((inflate.total_out() - before) as usize);
                        return Ok(serde_json::from_slice(&out).unwrap());
                    }
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next message on the socket.
    pub(crate) async fn socket_next(&mut self) -> Option<Message> {
        self.socket.next().await.and_then(Result::ok)
    }

    /// The next payload with this opcode. Skips the payloads before it.
    pub(crate) async fn until(&mut self, op: u64) -> Value {
        loop {
            let payload = self.next().await.unwrap();
            if payload["op"] == op {
                return payload;
            }
        }
    }

    pub(crate) async fn until_event(&mut self, event: &str) -> Value {
        loop {
            let payload = self.next().await.unwrap();
            if payload["t"] == event {
                return payload;
            }
        }
    }

    /// Reads until the end of the connection, and returns its close code.
    pub(crate) async fn end(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }

    pub(crate) async fn identify(&mut self, shard: u32, count: u32) {
        self.send(&identify(shard, count)).await;
    }

    /// Waits for Hello, identifies and waits for READY. Returns the session id.
    pub(crate) async fn login(&mut self, shard: u32, count: u32) -> String {
        self.until(10).await;
        self.identify(shard, count).await;
        self.until_event("READY").await["d"]["session_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.close(Some(frame)).await.unwrap();
        self.end().await;
    }
}

pub(crate) fn identify(shard: u32, count: u32) -> Value {
    let properties = json!({"os": "x", "browser": "y", "device": "z"});
    json!({"op": 2, "d": {"token": "sim-token", "properties": properties, "shard": [shard, count], "intents": INTENTS}})
}

pub(crate) fn resume(session: &str, sequence: u64) -> Value {
    json!({"op": 6, "d": {"token": "sim-token", "session_id": session, "seq": sequence}})
}

pub(crate) fn heartbeat(sequence: Value) -> Value {
    json!({"op": 1, "d": sequence})
}

/// The rules of the violations in the report.
pub(crate) fn rules(simulator: &Simulator) -> Vec<&'static str> {
    simulator.report().violations.iter().map(|violation| violation.rule).collect()
}

/// The rules of the notices in the report.
pub(crate) fn advice(simulator: &Simulator) -> Vec<&'static str> {
    simulator.report().notices.iter().map(|notice| notice.rule).collect()
}

/// Whether the report has neither violations nor notices.
pub(crate) fn is_spotless(simulator: &Simulator) -> bool {
    rules(simulator).is_empty() && advice(simulator).is_empty()
}

pub(crate) async fn get(simulator: &Simulator, path: &str, authorization: &str) -> String {
    let mut stream = simulator.connect();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// An answer: its status, its headers as text, its body.
pub(crate) async fn request(
    simulator: &Simulator,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, String, Value) {
    let mut stream = simulator.connect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bot sim-token\r\nuser-agent: DiscordBot (x, 1)\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}
