//! Encodings, compressions and frames on the wire.

use std::time::Duration;

use flate2::{Decompress, FlushDecompress};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::*;

async fn next_message(client: &mut Client) -> Message {
    timeout(Duration::from_secs(60), client.socket.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn gw_049_zstd_has_one_frame_per_connection_and_one_payload_per_message() {
    let simulator = simulator(|config| config.guilds = 3);
    let mut client =
        Client::connect_to(&simulator, "ws://x.invalid/?v=10&encoding=json&compress=zstd-stream").await;
    let mut context = zstd_safe::DCtx::create();
    let mut inflate = |bytes: &[u8]| -> Value {
        let mut out = vec![0; 1 << 20];
        let mut output = zstd_safe::OutBuffer::around(&mut out[..]);
        let mut input = zstd_safe::InBuffer::around(bytes);
        let more = context.decompress_stream(&mut output, &mut input).unwrap();
        assert!(more > 0, "the frame goes on");
        assert_eq!(input.pos(), bytes.len());
        serde_json::from_slice(output.as_slice()).unwrap()
    };
    let Message::Binary(hello) = next_message(&mut client).await else { panic!("binary") };
    assert_eq!(hello[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    assert_eq!(inflate(&hello)["op"], 10);
    client.identify(0, 1).await;
    for (sequence, event) in [(1, "READY"), (2, "GUILD_CREATE"), (3, "GUILD_CREATE"), (4, "GUILD_CREATE")] {
        let Message::Binary(bytes) = next_message(&mut client).await else { panic!("binary") };
        assert_ne!(bytes[..4], [0x28, 0xb5, 0x2f, 0xfd], "GW-051: only at the beginning");
        let payload = inflate(&bytes);
        assert_eq!((&payload["s"], &payload["t"]), (&json!(sequence), &json!(event)));
    }
}

#[tokio::test(start_paused = true)]
async fn gw_041_payload_compression_compresses_some_and_never_hello() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect(&simulator).await;
    assert!(matches!(next_message(&mut client).await, Message::Text(_)), "Hello");
    let mut payload = identify(0, 1);
    payload["d"]["compress"] = json!(true);
    client.send(&payload).await;
    let (mut packed, mut plain) = (0, 0);
    simulator.wait_until(|report| report.ready_sessions == 1).await;
    simulator.emit(0, 50);
    for _ in 0..52 {
        // GW-016: compressed payloads come in binary frames, plain JSON in text frames.
        match next_message(&mut client).await {
            Message::Binary(bytes) => {
                assert_eq!(bytes[0], 0x78);
                let mut out = vec![0; 1 << 20];
                // Each payload has its own compression context.
                let mut inflate = Decompress::new(true);
                let status = inflate.decompress(&bytes, &mut out, FlushDecompress::Finish).unwrap();
                assert_eq!(status, flate2::Status::StreamEnd);
                let _: Value = serde_json::from_slice(&out[..inflate.total_out() as usize]).unwrap();
                packed += 1;
            }
            Message::Text(_) => plain += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(packed > 0 && plain > 0, "{packed} {plain}");
    assert!(simulator.report().notices.is_empty());
}

#[tokio::test(start_paused = true)]
async fn gw_040_payload_compression_beside_transport_compression_is_tolerated() {
    let simulator = simulator(|config| config.guilds = 1);
    let url = "ws://x.invalid/?v=10&encoding=json&compress=zlib-stream";
    let mut client = Client::connect_to(&simulator, url).await;
    client.until(10).await;
    let mut payload = identify(0, 1);
    payload["d"]["compress"] = json!(true);
    client.send(&payload).await;
    client.until_event("READY").await;
    assert!(rules(&simulator).is_empty());
    assert_eq!(simulator.report().notices[0].rule, "GW-040");
}

#[tokio::test(start_paused = true)]
async fn gw_015_messages_come_in_fragments() {
    let simulator = simulator(|config| {
        config.guilds = 10;
        config.split_frames = true;
    });
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    for _ in 0..10 {
        client.until_event("GUILD_CREATE").await;
    }
}

#[tokio::test(start_paused = true)]
async fn gw_016_033_034_etf_both_ways() {
    let simulator = simulator(|config| config.guilds = 1);
    let mut client = Client::connect_to(&simulator, "ws://x.invalid/?v=10&encoding=etf").await;
    let Message::Binary(hello) = next_message(&mut client).await else { panic!("binary") };
    // GW-035: every message starts with byte 131.
    assert_eq!(hello[0], 131);
    // {"op":1,"d":251}, and the same with a key that is an atom.
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    client
        .socket
        .send(Message::binary(bytes("8374000000026d000000026f7061016d000000016461fb")))
        .await
        .unwrap();
    let Message::Binary(ack) = next_message(&mut client).await else { panic!("binary") };
    assert!(ack.ends_with(b"\x61\x0b") || ack.windows(2).any(|pair| pair == b"\x61\x0b"), "op 11");
    client.socket.send(Message::binary(bytes("83740000000277026f7061016d000000016461fb"))).await.unwrap();
    assert_eq!(client.end().await, Some(4002));
    assert_eq!(rules(&simulator), ["GW-033"]);
}

#[tokio::test(start_paused = true)]
async fn json_in_binary_frames_is_taken_and_the_close_code_comes_back() {
    let simulator = simulator(|_| {});
    let mut client = Client::connect(&simulator).await;
    client.until(10).await;
    client.socket.send(Message::binary(identify(0, 1).to_string().into_bytes())).await.unwrap();
    client.until_event("READY").await;
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 4321.into(), reason: "".into() };
    client.socket.close(Some(frame)).await.unwrap();
    assert_eq!(client.end().await, Some(4321));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_connections_a_second_do_no_harm() {
    let simulator = simulator(|_| {});
    for number in 0..1000 {
        let client = Client::connect(&simulator).await;
        if number % 2 == 0 {
            drop(client);
        }
    }
    let mut client = Client::connect(&simulator).await;
    client.login(0, 1).await;
    assert_eq!(simulator.report().connections, 1001);
}

#[tokio::test(start_paused = true)]
async fn gw_044_045_the_suffix_is_cut_only_where_that_is_asked_for() {
    for split_suffix in [false, true] {
        let simulator = simulator(|config| {
            config.guilds = 5;
            config.split_frames = true;
            config.split_suffix = split_suffix;
        });
        let url = "ws://x.invalid/?v=10&encoding=json&compress=zlib-stream";
        let mut client = Client::connect_to(&simulator, url).await;
        client.identify(0, 1).await;
        simulator.wait_until(|report| report.ready_sessions == 1).await;
        simulator.emit(0, 300);
        let (mut payloads, mut pieces, mut cut_suffixes) = (0, 0, 0);
        let mut collected = Vec::new();
        while payloads < 307 {
            let Message::Binary(bytes) = next_message(&mut client).await else { panic!("binary") };
            collected.extend_from_slice(&bytes);
            if collected.ends_with(&[0, 0, 0xff, 0xff]) {
                cut_suffixes += usize::from(bytes.len() < 4);
                payloads += 1;
                collected.clear();
            } else {
                pieces += 1;
            }
        }
        assert!(pieces > 50, "{pieces}");
        assert_eq!(cut_suffixes > 10, split_suffix, "{cut_suffixes}");
    }
}

#[tokio::test(start_paused = true)]
async fn gw_037_atoms_are_mixed_only_where_that_is_asked_for() {
    for mixed in [false, true] {
        let simulator = simulator(|config| config.mixed_atoms = mixed);
        let mut client = Client::connect_to(&simulator, "ws://x.invalid/?v=10&encoding=etf").await;
        let Message::Binary(hello) = next_message(&mut client).await else { panic!("binary") };
        // `op` and `s` are atoms. If mixed, `nil` and `op` would have the newer tags.
        let newer = hello.windows(4).any(|window| window == b"\x76\x00\x02o" || window == b"\x77\x03ni");
        assert_eq!(newer, mixed, "{hello:?}");
    }
}
