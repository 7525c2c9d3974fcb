//! An open connection over an in-memory stream and a paused clock.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::samples::{M1, M2, WHOLE_M1, ZLIB_M1, deflate, hex, whole};
use common::{Breakable, closed, config, flushed, message, pair, pair_over, pair_with_buffer};
use futures_util::{SinkExt, StreamExt};
use shardkeeper_transport::{
    Compression, Connection, Event, InflateError, Initiator, Reading, TransportError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Long enough under the paused clock that everything that can happen has happened.
const A_WHILE: Duration = Duration::from_secs(3600);

fn close_frame(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code: code.into(), reason: reason.into() }
}

/// Checks that nothing more happens on the connection.
async fn quiet(connection: &mut Connection, reading: Reading) {
    if let Ok(event) = timeout(A_WHILE, connection.next(reading)).await {
        panic!("not quiet but {event:?}");
    }
}

/// GW-016: JSON arrives in text frames, anything else in binary ones; both are returned unchanged.
#[tokio::test(start_paused = true)]
async fn uncompressed_messages_come_as_they_are() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    server.send(Message::text(r#"{"op":10}"#)).await.unwrap();
    server.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    server.send(Message::text("")).await.unwrap();
    assert_eq!(message(&mut connection).await, br#"{"op":10}"#);
    assert_eq!(message(&mut connection).await, [1, 2, 3]);
    assert_eq!(message(&mut connection).await, b"");
    let traffic = connection.traffic();
    assert_eq!((traffic.payloads, traffic.received_bytes, traffic.payload_bytes), (3, 12, 12));
    quiet(&mut connection, Reading::On).await;
}

#[tokio::test(start_paused = true)]
async fn inflated_payloads_over_any_frames() {
    let (mut connection, mut server) = pair(&config(Compression::ZlibStream)).await;
    let large = "{\"name\":\"a guild\"}".repeat(20_000);
    let payloads = [r#"{"op":10}"#, &large, r#"{"op":11}"#];
    let frames = deflate(&payloads);
    let received: usize = frames.iter().map(Vec::len).sum();
    let (third, end) = (frames[1].len() / 3, frames[1].len());
    // GW-044, GW-045: the second payload spans three messages, the last of which holds half of the suffix.
    let parts = [
        &frames[0][..],
        &frames[1][..third],
        &frames[1][third..end - 2],
        &frames[1][end - 2..],
        &frames[2][..],
    ];
    for part in parts {
        server.send(Message::binary(part.to_vec())).await.unwrap();
    }
    for payload in payloads {
        assert!(message(&mut connection).await == payload.as_bytes());
    }
    let traffic = connection.traffic();
    assert_eq!(traffic.payloads, 3);
    assert_eq!(traffic.received_bytes, received as u64);
    assert_eq!(traffic.payload_bytes, large.len() as u64 + 18);
}

/// GW-015: fragmented messages are accepted, also with a ping between the fragments, which RFC 6455 allows.
#[tokio::test(start_paused = true)]
async fn fragmented_messages() {
    let (mut connection, server) = pair(&config(Compression::None)).await;
    let mut raw = server.into_inner();
    raw.write_all(b"\x01\x03{\"a\x89\x02hi\x00\x02\":\x80\x022}").await.unwrap();
    assert_eq!(message(&mut connection).await, br#"{"a":2}"#);
}

/// The frame is above the codec's own default limit of 16 MiB.
#[tokio::test(start_paused = true)]
async fn a_frame_of_20_mib() {
    let (mut connection, mut server) = pair_with_buffer(&config(Compression::None), 1 << 20).await;
    let large = Message::binary(vec![b' '; 20 << 20]);
    let (sent, received) = tokio::join!(server.send(large), message(&mut connection));
    sent.unwrap();
    // GW-014: incoming messages have no small limit.
    assert_eq!(received.len(), 20 << 20);
    server.send(Message::text("{}")).await.unwrap();
    assert_eq!(message(&mut connection).await, b"{}");
}

#[tokio::test(start_paused = true)]
async fn try_next_drains_without_waiting() {
    let (mut connection, mut server) = pair(&config(Compression::ZlibStream)).await;
    assert!(connection.try_next().is_none());
    for frame in deflate(&["1", "22", "333"]) {
        server.send(Message::binary(frame)).await.unwrap();
    }
    assert_eq!(message(&mut connection).await, b"1");
    assert!(matches!(connection.try_next(), Some(Event::Message(b"22"))));
    assert!(matches!(connection.try_next(), Some(Event::Message(b"333"))));
    assert!(connection.try_next().is_none());
    connection.enqueue("{}").unwrap();
    assert!(matches!(connection.try_next(), Some(Event::Flushed)));
    assert!(connection.try_next().is_none());
}

/// After a `try_next` that found nothing, `next` still wakes its task.
#[tokio::test(start_paused = true)]
async fn next_is_woken_after_try_next() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    assert!(connection.try_next().is_none());
    let reader = tokio::spawn(async move { message(&mut connection).await });
    tokio::time::sleep(A_WHILE).await;
    server.send(Message::text("{}")).await.unwrap();
    assert_eq!(reader.await.unwrap(), b"{}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_next_loses_nothing() {
    let (mut connection, server) = pair(&config(Compression::ZlibStream)).await;
    let mut raw = server.into_inner();
    let frame = &deflate(&[r#"{"op":10}"#])[0];
    // Two unmasked WebSocket messages, sent byte by byte.
    let mut bytes = vec![0x82, 5];
    bytes.extend(&frame[..5]);
    bytes.extend([0x82, u8::try_from(frame.len() - 5).unwrap()]);
    bytes.extend(&frame[5..]);
    let (last, bytes) = bytes.split_last().unwrap();
    for byte in bytes {
        raw.write_all(&[*byte]).await.unwrap();
        quiet(&mut connection, Reading::On).await;
    }
    raw.write_all(&[*last]).await.unwrap();
    assert_eq!(message(&mut connection).await, br#"{"op":10}"#);
}

/// GW-015: WebSocket pings are answered and prove nothing about liveness.
#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_not_reported() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    server.send(Message::Ping("p".into())).await.unwrap();
    server.send(Message::Pong("unasked".into())).await.unwrap();
    quiet(&mut connection, Reading::On).await;
    assert_eq!(server.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    connection.enqueue("after").unwrap();
    flushed(&mut connection, Reading::On).await;
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("after"));
}

/// A pong that did not fit into the stream is sent later, even while reading is paused.
#[tokio::test(start_paused = true)]
async fn a_stuck_pong_is_written_while_reading_is_paused() {
    let (mut connection, mut server) = pair_with_buffer(&config(Compression::None), 128).await;
    // Fills the stream to its last byte: 122 bytes and a header of 6.
    connection.enqueue("x".repeat(122)).unwrap();
    flushed(&mut connection, Reading::On).await;
    server.send(Message::Ping("late".into())).await.unwrap();
    quiet(&mut connection, Reading::On).await;
    let reader = async {
        assert_eq!(server.next().await.unwrap().unwrap().len(), 122);
        timeout(A_WHILE, server.next()).await.expect("a pong").unwrap().unwrap()
    };
    let (pong, ()) = tokio::join!(reader, quiet(&mut connection, Reading::Paused));
    assert_eq!(pong, Message::Pong("late".into()));
}

#[tokio::test(start_paused = true)]
async fn flushed_comes_once_for_all_that_was_queued() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    for text in ["1", "2", "3"] {
        connection.enqueue(text).unwrap();
    }
    flushed(&mut connection, Reading::On).await;
    quiet(&mut connection, Reading::On).await;
    for text in ["1", "2", "3"] {
        // GW-016: the client sends JSON in text frames.
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text(text));
    }
    connection.enqueue("4".to_owned()).unwrap();
    flushed(&mut connection, Reading::Paused).await;
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("4"));
}

/// A heartbeat never waits for a peer that does not read, and reading continues meanwhile.
#[tokio::test(start_paused = true)]
async fn a_stuck_write_does_not_stop_reading() {
    let (mut connection, mut server) = pair_with_buffer(&config(Compression::None), 256).await;
    for i in 0..100 {
        connection.enqueue(format!("message {i}")).unwrap();
    }
    quiet(&mut connection, Reading::On).await;
    for i in 0..50 {
        let (sent, received) =
            tokio::join!(server.send(Message::text(format!("{i}"))), message(&mut connection));
        sent.unwrap();
        assert_eq!(received, i.to_string().as_bytes());
    }
    connection.enqueue("the last").unwrap();
    let writer = tokio::spawn(async move {
        flushed(&mut connection, Reading::On).await;
        connection
    });
    for i in 0..100 {
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text(format!("message {i}")));
    }
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("the last"));
    quiet(&mut writer.await.unwrap(), Reading::On).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_buffer_that_is_full_ends_the_connection() {
    let mut config = config(Compression::None);
    config.max_write_buffer_bytes = 1000;
    let (mut connection, _server) = pair_with_buffer(&config, 128).await;
    let mut queued = 0;
    let error = loop {
        match connection.enqueue("x".repeat(90)) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        let _ = timeout(A_WHILE, connection.next(Reading::On)).await;
    };
    // 96 bytes each with its header: 10 fit into the buffer, and one more into the 128 bytes that the stream
    // took.
    assert_eq!(queued, 11);
    assert!(matches!(error, TransportError::WriteBufferFull { limit: 1000 }), "{error:?}");
    let closed = closed(&mut connection).await;
    assert_eq!(closed.by, Initiator::Transport);
    assert!(matches!(closed.error, Some(TransportError::WriteBufferFull { .. })));
    assert!(matches!(connection.enqueue("{}"), Err(TransportError::Closing)));
}

/// The smallest configuration neither panics nor rejects a close frame.
#[tokio::test(start_paused = true)]
async fn bounds_of_zero() {
    let mut config = config(Compression::ZlibStream);
    config.max_write_buffer_bytes = 0;
    config.read_buffer_bytes = 0;
    config.max_message_bytes = 0;
    let (mut connection, mut server) = pair(&config).await;
    server.send(Message::Ping(vec![0; 125].into())).await.unwrap();
    quiet(&mut connection, Reading::On).await;
    assert!(server.next().await.unwrap().unwrap().is_pong());
    connection.enqueue_close(4000, "x").unwrap();
    flushed(&mut connection, Reading::On).await;
    server.next().await.unwrap().unwrap();
    server.flush().await.unwrap();
    assert_eq!(closed(&mut connection).await.code, Some(4000));
}

#[tokio::test(start_paused = true)]
async fn paused_reading_writes_and_does_not_read() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    server.send(Message::text("waits")).await.unwrap();
    quiet(&mut connection, Reading::Paused).await;
    connection.enqueue("heartbeat").unwrap();
    flushed(&mut connection, Reading::Paused).await;
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("heartbeat"));
    assert_eq!(message(&mut connection).await, b"waits");
}

/// Back-pressure reaches the peer: unread messages fill the stream and no other buffer.
#[tokio::test(start_paused = true)]
async fn paused_reading_holds_the_peer_back() {
    let (mut connection, mut server) = pair_with_buffer(&config(Compression::None), 256).await;
    let sending = tokio::spawn(async move {
        for _ in 0..100 {
            server.send(Message::text("x".repeat(50))).await.unwrap();
        }
        server
    });
    quiet(&mut connection, Reading::Paused).await;
    assert!(!sending.is_finished());
    for _ in 0..100 {
        assert_eq!(message(&mut connection).await.len(), 50);
    }
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_peer_closes() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    server.send(Message::text("last")).await.unwrap();
    server.close(Some(close_frame(4004, "Authentication failed."))).await.unwrap();
    assert_eq!(message(&mut connection).await, b"last");
    for _ in 0..3 {
        let closed = closed(&mut connection).await;
        assert_eq!((closed.code, closed.by), (Some(4004), Initiator::Peer));
        assert_eq!(closed.reason, "Authentication failed.");
        assert!(closed.error.is_none());
    }
    assert!(matches!(connection.try_next(), Some(Event::Closed(_))));
    assert!(!connection.is_open());
    assert!(matches!(connection.enqueue("{}"), Err(TransportError::Closing)));
    assert!(matches!(connection.enqueue_close(4000, ""), Err(TransportError::Closing)));
    // The answer of RFC 6455, 5.5.1, is sent although nothing was polled since.
    let answer = timeout(A_WHILE, server.next()).await.expect("an answer").unwrap().unwrap();
    assert_eq!(answer, Message::Close(Some(close_frame(4004, "Authentication failed."))));
}

/// RFC 6455, 5.5.1: nothing counts after a close frame, even if both arrived in one read.
#[tokio::test(start_paused = true)]
async fn what_the_peer_sends_after_its_close_frame_is_not_handed_over() {
    for we_close_first in [false, true] {
        for paused in [false, true] {
            let (mut connection, mut server) = pair(&config(Compression::None)).await;
            if we_close_first {
                connection.enqueue_close(4000, "").unwrap();
                flushed(&mut connection, Reading::On).await;
            }
            // Raw frames, since no codec writes after a close frame: "last", 4004, "late", 4014.
            let frames = b"\x81\x04last\x88\x02\x0f\xa4\x81\x04late\x88\x02\x0f\xae";
            server.get_mut().write_all(frames).await.unwrap();
            assert_eq!(message(&mut connection).await, b"last");
            let by = if we_close_first { Initiator::Local } else { Initiator::Peer };
            let end = closed(&mut connection).await;
            assert_eq!((end.code, end.by, end.error.is_none()), (Some(4004), by, true));
            for _ in 0..3 {
                let reading = if paused { Reading::Paused } else { Reading::On };
                let event = timeout(A_WHILE, connection.next(reading)).await;
                match event.expect("the end is reported again") {
                    Event::Closed(again) => assert_eq!((again.code, again.by), (Some(4004), by)),
                    other => panic!("after the end: {other:?}"),
                }
                assert!(matches!(connection.try_next(), Some(Event::Closed(_))));
            }
            assert_eq!(connection.traffic().payloads, 1);
        }
    }
}

/// GW-093: a connection may end without a close code.
#[tokio::test(start_paused = true)]
async fn the_peer_closes_without_a_code() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    server.close(None).await.unwrap();
    let closed = closed(&mut connection).await;
    assert_eq!((closed.code, closed.by), (None, Initiator::Peer));
}

/// Messages that the peer sent before it received our close frame are still returned.
#[tokio::test(start_paused = true)]
async fn we_close() {
    let (mut connection, mut server) = pair(&config(Compression::ZlibStream)).await;
    connection.enqueue("before").unwrap();
    connection.enqueue_close(4000, "resuming elsewhere").unwrap();
    assert!(!connection.is_open());
    assert!(matches!(connection.enqueue("after"), Err(TransportError::Closing)));
    flushed(&mut connection, Reading::On).await;
    for frame in deflate(&["crossed", "over"]) {
        server.send(Message::binary(frame)).await.unwrap();
    }
    assert_eq!(message(&mut connection).await, b"crossed");
    assert_eq!(message(&mut connection).await, b"over");
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("before"));
    // GW-101: a close frame never goes without a code.
    let close = Message::Close(Some(close_frame(4000, "resuming elsewhere")));
    assert_eq!(server.next().await.unwrap().unwrap(), close);
    assert!(server.next().await.is_none());
    let closed = closed(&mut connection).await;
    assert_eq!((closed.code, closed.by), (Some(4000), Initiator::Local));
    assert!(closed.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn we_close_and_the_peer_only_hangs_up() {
    let (mut connection, server) = pair(&config(Compression::None)).await;
    connection.enqueue_close(4000, "").unwrap();
    flushed(&mut connection, Reading::On).await;
    drop(server);
    let closed = closed(&mut connection).await;
    assert_eq!((closed.code, closed.by), (None, Initiator::Local));
    assert!(matches!(closed.error, Some(TransportError::Disconnected)));
}

/// GW-102: the answer may never arrive, and the caller has to limit the wait.
#[tokio::test(start_paused = true)]
async fn we_close_and_the_peer_says_nothing() {
    let (mut connection, _server) = pair(&config(Compression::None)).await;
    connection.enqueue_close(4000, "").unwrap();
    flushed(&mut connection, Reading::On).await;
    quiet(&mut connection, Reading::On).await;
}

/// GW-102: the wait for the answer to a close frame is limited, whatever the peer does.
#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_answer_or_for_its_deadline() {
    let (connection, mut server) = pair(&config(Compression::None)).await;
    let answering = tokio::spawn(async move { while let Some(Ok(_)) = server.next().await {} });
    let closed = connection.close(4900, "reconnect", Duration::from_secs(3)).await.unwrap();
    assert_eq!((closed.code, closed.by), (Some(4900), Initiator::Local));
    answering.await.unwrap();

    let (connection, server) = pair(&config(Compression::None)).await;
    let start = tokio::time::Instant::now();
    assert!(connection.close(4901, "", Duration::from_secs(3)).await.is_none());
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn close_frames_that_must_not_be_sent() {
    let (mut connection, _server) = pair(&config(Compression::None)).await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        let error = connection.enqueue_close(code, "").unwrap_err();
        assert!(matches!(error, TransportError::InvalidClose { .. }), "{code}: {error:?}");
    }
    let long: &'static str = Box::leak("x".repeat(124).into_boxed_str());
    assert!(connection.enqueue_close(4000, long).is_err());
    assert!(connection.is_open());
    connection.enqueue_close(4000, &long[1..]).unwrap();
}

/// GW-099, GW-100: dropping a connection sends no close frame, even with queued messages, so the session
/// stays.
#[tokio::test(start_paused = true)]
async fn dropping_says_nothing() {
    for queued in [false, true] {
        let (mut connection, server) = pair(&config(Compression::None)).await;
        quiet(&mut connection, Reading::On).await;
        if queued {
            connection.enqueue("{}").unwrap();
        }
        drop(connection);
        let mut rest = Vec::new();
        server.into_inner().read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

/// GW-093: a connection may end without a close frame.
#[tokio::test(start_paused = true)]
async fn the_stream_ends() {
    for compression in [Compression::None, Compression::ZlibStream] {
        let (mut connection, server) = pair(&config(compression)).await;
        drop(server);
        let closed = closed(&mut connection).await;
        assert_eq!((closed.code, closed.by), (None, Initiator::Transport));
        assert!(matches!(closed.error, Some(TransportError::Disconnected)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_inside_of_a_message() {
    // The stream ends within a frame.
    let (mut connection, server) = pair(&config(Compression::None)).await;
    let mut raw = server.into_inner();
    raw.write_all(b"\x81\x10{\"op\"").await.unwrap();
    drop(raw);
    assert!(matches!(closed(&mut connection).await.error, Some(TransportError::Disconnected)));

    // The stream ends within a payload.
    let (mut connection, mut server) = pair(&config(Compression::ZlibStream)).await;
    let frame = &deflate(&[r#"{"op":10}"#])[0];
    server.send(Message::binary(frame[..8].to_vec())).await.unwrap();
    drop(server);
    assert!(matches!(closed(&mut connection).await.error, Some(TransportError::Disconnected)));
    assert_eq!(connection.traffic().payloads, 0);
}

/// A failed write does not hide the peer's earlier close frame: code 4004 needs another reaction than a
/// reset.
#[tokio::test(start_paused = true)]
async fn a_failed_write_does_not_hide_the_close_code() {
    let (mut connection, mut server) = pair(&config(Compression::None)).await;
    server.send(Message::text("last")).await.unwrap();
    server.close(Some(close_frame(4004, ""))).await.unwrap();
    drop(server);
    connection.enqueue("heartbeat").unwrap();
    assert_eq!(message(&mut connection).await, b"last");
    connection.enqueue("another").unwrap();
    let closed = closed(&mut connection).await;
    assert_eq!((closed.code, closed.by), (Some(4004), Initiator::Peer));
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_ends_a_connection_that_has_nothing_to_read() {
    for reading in [Reading::On, Reading::Paused] {
        let broken = Arc::new(AtomicBool::new(false));
        let (client, server) = tokio::io::duplex(1024);
        let client = Breakable { inner: client, broken: Arc::clone(&broken) };
        let (mut connection, _server) = pair_over(client, server, &config(Compression::None)).await;
        quiet(&mut connection, reading).await;
        broken.store(true, Ordering::Relaxed);
        quiet(&mut connection, reading).await;
        connection.enqueue("{}").unwrap();
        let Event::Closed(closed) = connection.next(reading).await else { panic!("not closed") };
        assert_eq!(closed.by, Initiator::Transport);
        assert!(matches!(closed.error, Some(TransportError::Io(_))), "{closed:?}");
    }
}

/// A close frame that cannot be written is not an error of `enqueue_close`.
#[tokio::test(start_paused = true)]
async fn a_close_frame_that_cannot_be_written() {
    let broken = Arc::new(AtomicBool::new(false));
    let (client, server) = tokio::io::duplex(1024);
    let client = Breakable { inner: client, broken: Arc::clone(&broken) };
    let (mut connection, _server) = pair_over(client, server, &config(Compression::None)).await;
    broken.store(true, Ordering::Relaxed);
    connection.enqueue_close(4000, "").unwrap();
    let closed = closed(&mut connection).await;
    assert_eq!(closed.by, Initiator::Local);
    assert!(matches!(closed.error, Some(TransportError::Io(_))), "{closed:?}");
}

/// Each violation of RFC 6455 ends the connection with a typed error and without a panic.
#[tokio::test(start_paused = true)]
async fn a_peer_that_misbehaves() {
    let breaches: &[(&str, &[u8])] = &[
        ("masked", b"\x81\x82\x01\x02\x03\x04\x60\x60"),
        ("reserved bit", b"\xc1\x01a"),
        ("reserved opcode", b"\x83\x01a"),
        ("reserved control opcode", b"\x8b\x00"),
        ("fragmented ping", b"\x09\x01a"),
        ("long ping", b"\x89\x7e\x00\x7e"),
        ("continuation of nothing", b"\x80\x01a"),
        ("text inside of text", b"\x01\x01a\x81\x01b"),
        ("close of one byte", b"\x88\x01\x03"),
    ];
    for (what, bytes) in breaches {
        let (mut connection, server) = pair(&config(Compression::None)).await;
        let mut raw = server.into_inner();
        raw.write_all(bytes).await.unwrap();
        raw.write_all(&[0; 200]).await.unwrap();
        let closed = closed(&mut connection).await;
        assert_eq!(closed.by, Initiator::Transport, "{what}");
        assert!(matches!(closed.error, Some(TransportError::Misbehaved(_))), "{what}: {closed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn text_that_is_not_utf_8() {
    for bytes in [&b"\x81\x02\xc3\x28"[..], b"\x01\x01\xc3\x80\x01\x28", b"\x88\x04\x0f\xa0\xc3\x28"] {
        let (mut connection, server) = pair(&config(Compression::None)).await;
        let mut raw = server.into_inner();
        raw.write_all(bytes).await.unwrap();
        let closed = closed(&mut connection).await;
        // GW-031: messages are UTF-8.
        assert!(matches!(closed.error, Some(TransportError::InvalidUtf8)), "{closed:?}");
    }
}

/// GW-014: the announced length of a frame is enough to reject it, and fragments count together.
#[tokio::test(start_paused = true)]
async fn messages_above_the_limit() {
    let mut config = config(Compression::None);
    config.max_message_bytes = 1000;
    let fragment = [&b"\x00\x7e\x02\x58"[..], &[b'x'; 600]].concat();
    let fragments = [&b"\x02\x7e\x02\x58"[..], &[b'x'; 600], &fragment].concat();
    for bytes in [&b"\x82\x7e\x03\xe9"[..], b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", fragments.as_slice()]
    {
        let (mut connection, server) = pair(&config).await;
        let mut raw = server.into_inner();
        raw.write_all(bytes).await.unwrap();
        let closed = closed(&mut connection).await;
        assert!(matches!(closed.error, Some(TransportError::TooLarge { limit: 1000, .. })), "{closed:?}");
    }
    let (mut connection, mut server) = pair(&config).await;
    server.send(Message::binary(vec![b'x'; 1000])).await.unwrap();
    assert_eq!(message(&mut connection).await.len(), 1000);
}

/// GW-053: a decompression error ends the connection. GW-054: so does a payload that is too large.
#[tokio::test(start_paused = true)]
async fn streams_that_cannot_be_inflated() {
    let mut config = config(Compression::ZlibStream);
    config.max_message_bytes = 10_000;
    let bomb = deflate(&[&"0".repeat(10_001)]).remove(0);
    for (sent, expected) in [
        (Message::binary(bomb), TransportError::Inflate(InflateError::TooLarge { limit: 10_000 })),
        (
            Message::binary(b"garbage\x00\x00\xff\xff".to_vec()),
            TransportError::Inflate(InflateError::Corrupt { total_in: 0 }),
        ),
    ] {
        let (mut connection, mut server) = pair(&config).await;
        server.send(sent).await.unwrap();
        let closed = closed(&mut connection).await;
        assert_eq!((closed.code, closed.by), (None, Initiator::Transport));
        assert_eq!(format!("{:?}", closed.error), format!("{:?}", Some(expected)));
    }
}

fn streams() -> Vec<Compression> {
    vec![
        Compression::ZlibStream,
        #[cfg(feature = "zstd")]
        Compression::ZstdStream,
    ]
}

/// A server that does not support the requested compression.
#[tokio::test(start_paused = true)]
async fn text_is_text_whatever_the_url_asks_for() {
    for compression in streams() {
        let (mut connection, mut server) = pair(&config(compression)).await;
        for text in [M1, M2, "", M1] {
            server.send(Message::text(text)).await.unwrap();
            assert_eq!(message(&mut connection).await, text.as_bytes());
            assert!(connection.is_uncompressed());
        }
    }
}

/// A proxy that compresses only some messages.
#[tokio::test(start_paused = true)]
async fn text_does_not_disturb_the_compressed_stream() {
    let (mut connection, mut server) = pair(&config(Compression::ZlibStream)).await;
    let frames = deflate(&[M1, M2]);
    server.send(Message::binary(frames[0].clone())).await.unwrap();
    assert_eq!(message(&mut connection).await, M1.as_bytes());
    assert!(!connection.is_uncompressed());
    server.send(Message::text("{}")).await.unwrap();
    assert_eq!(message(&mut connection).await, b"{}");
    server.send(Message::binary(frames[1].clone())).await.unwrap();
    assert_eq!(message(&mut connection).await, M2.as_bytes());
}

/// A server without compression and with an encoding that needs binary messages. Once a stream has begun,
/// plain binary messages are no longer accepted.
#[tokio::test(start_paused = true)]
async fn binary_payloads_that_were_never_compressed_are_taken() {
    for compression in streams() {
        let config = config(compression);
        for payload in [&b"{\"op\":11}"[..], &[131, 116, 0, 0, 0, 0]] {
            let (mut connection, mut server) = pair(&config).await;
            for _ in 0..3 {
                server.send(Message::binary(payload.to_vec())).await.unwrap();
                assert_eq!(message(&mut connection).await, payload);
            }
            assert!(connection.is_uncompressed());
            assert_eq!(connection.traffic().payloads, 3);
        }
    }
    let (mut connection, mut server) = pair(&config(Compression::ZlibStream)).await;
    server.send(Message::binary(deflate(&[M1]).remove(0))).await.unwrap();
    assert_eq!(message(&mut connection).await, M1.as_bytes());
    server.send(Message::binary(b"{\"op\":11}\x00\x00\xff\xff".to_vec())).await.unwrap();
    let event = connection.next(Reading::On).await;
    assert!(!matches!(event, Event::Message(payload) if payload.starts_with(b"{\"op\"")), "{event:?}");
    assert!(!connection.is_uncompressed());
}

/// GW-042: text is a plain payload, and a binary message is a plain payload or a zlib stream.
#[tokio::test(start_paused = true)]
async fn gw_042_payload_compression_is_detected_per_message() {
    let (mut connection, mut server) = pair(&config(Compression::Payload)).await;
    let large = "{\"name\":\"a guild\"}".repeat(20_000);
    let messages = [
        (Message::text(M1), M1),
        (Message::binary(hex(WHOLE_M1)), M1),
        (Message::text(M2), M2),
        (Message::binary(whole(large.as_bytes())), &large),
        (Message::binary(M2.as_bytes().to_vec()), M2),
        (Message::text(large.clone()), &large),
        (Message::binary(hex(WHOLE_M1)), M1),
        // Text is never compressed, whatever its first byte is.
        (Message::text("x"), "x"),
        (Message::text(""), ""),
    ];
    let received: usize = messages.iter().map(|(sent, _)| sent.len()).sum();
    let inflated: usize = messages.iter().map(|(_, payload)| payload.len()).sum();
    for (sent, payload) in messages {
        let (sent, taken) = tokio::join!(server.send(sent), message(&mut connection));
        sent.unwrap();
        assert!(taken == payload.as_bytes(), "{} bytes instead of {}", taken.len(), payload.len());
    }
    let traffic = connection.traffic();
    assert_eq!(traffic.payloads, 9);
    assert_eq!((traffic.received_bytes, traffic.payload_bytes), (received as u64, inflated as u64));
}

/// Also where messages share no context: the payload is lost, and with it the order of sequence numbers.
#[tokio::test(start_paused = true)]
async fn gw_053_an_undecodable_message_ends_a_connection_with_payload_compression() {
    let mut config = config(Compression::Payload);
    config.max_message_bytes = 1000;
    for (sent, expected) in [
        (hex(ZLIB_M1), InflateError::Truncated { total_in: 62 }),
        ([hex(WHOLE_M1), vec![0]].concat(), InflateError::Corrupt { total_in: 61 }),
        (whole(&[b' '; 1001]), InflateError::TooLarge { limit: 1000 }),
    ] {
        let (mut connection, mut server) = pair(&config).await;
        server.send(Message::text(M1)).await.unwrap();
        server.send(Message::binary(sent)).await.unwrap();
        assert_eq!(message(&mut connection).await, M1.as_bytes());
        let closed = closed(&mut connection).await;
        assert_eq!((closed.code, closed.by), (None, Initiator::Transport));
        let Some(TransportError::Inflate(error)) = closed.error else { panic!("{closed:?}") };
        assert_eq!(error, expected);
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use super::*;
    use crate::common::samples::zstd::zstd;
    use crate::common::samples::{ZSTD_M1, ZSTD_M2, prose};

    /// GW-048: a new connection starts a fresh context.
    #[tokio::test(start_paused = true)]
    async fn gw_048_each_connection_has_its_own_context() {
        let config = config(Compression::ZstdStream);
        for _ in 0..2 {
            let (mut connection, mut server) = pair(&config).await;
            server.send(Message::binary(hex(ZSTD_M1))).await.unwrap();
            server.send(Message::binary(hex(ZSTD_M2))).await.unwrap();
            assert_eq!(message(&mut connection).await, M1.as_bytes());
            assert_eq!(message(&mut connection).await, M2.as_bytes());
        }
        let (mut connection, mut server) = pair(&config).await;
        server.send(Message::binary(hex(ZSTD_M2))).await.unwrap();
        let closed = closed(&mut connection).await;
        let Some(TransportError::Inflate(error)) = closed.error else { panic!("{closed:?}") };
        assert_eq!(error, InflateError::Corrupt { total_in: 0 });
    }

    /// GW-050: a message is complete although the zstd frame continues.
    #[tokio::test(start_paused = true)]
    async fn gw_050_small_and_large_payloads_in_one_frame() {
        let (mut connection, mut server) = pair_with_buffer(&config(Compression::ZstdStream), 16 << 20).await;
        let payloads = [M1.as_bytes().to_vec(), prose(5 << 20), M2.as_bytes().to_vec()];
        let messages = zstd(&payloads);
        let received: usize = messages.iter().map(Vec::len).sum();
        for message in messages {
            server.send(Message::binary(message)).await.unwrap();
        }
        for payload in &payloads {
            assert!(message(&mut connection).await == *payload);
        }
        let traffic = connection.traffic();
        assert_eq!((traffic.payloads, traffic.received_bytes), (3, received as u64));
        assert_eq!(traffic.payload_bytes, payloads.iter().map(Vec::len).sum::<usize>() as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn gw_053_what_ends_the_connection() {
        for (sent, expected) in [
            (Message::binary(hex(ZLIB_M1)), "Inflate(Corrupt { total_in: 0 })"),
            (Message::binary(hex(ZSTD_M1)[..20].to_vec()), "Inflate(Truncated { total_in: 20 })"),
            (Message::binary(Vec::new()), "Inflate(Truncated { total_in: 0 })"),
        ] {
            let (mut connection, mut server) = pair(&config(Compression::ZstdStream)).await;
            server.send(sent).await.unwrap();
            let closed = closed(&mut connection).await;
            assert_eq!((closed.code, closed.by), (None, Initiator::Transport));
            assert_eq!(format!("{:?}", closed.error.unwrap()), expected);
        }
    }
}

#[test]
fn a_connection_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Connection>();
    fn next_is_send(connection: &mut Connection) -> impl Send {
        connection.next(Reading::On)
    }
    let _ = next_is_send;
}
