//! The inflater with `zstd-stream`: test vectors, limits and invalid data (GW-048 to GW-051, GW-053, GW-054).
#![cfg(feature = "zstd")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::samples::zstd::{Encoder, zstd};
use common::samples::{M1, M2, ZSTD_M1, ZSTD_M2, hex, noise, prose};
use proptest::prelude::*;
use shardkeeper_transport::{Compression, InflateError, Inflater};

const LIMIT: usize = 16 << 20;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A stored block with `{}` that is not the last of its frame.
const BLOCK: [u8; 5] = [2 << 3, 0, 0, b'{', b'}'];

fn inflater() -> Inflater {
    Inflater::new(Compression::ZstdStream, LIMIT).unwrap()
}

/// The ends of the blocks in a message without a frame header.
fn block_ends(message: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let header = u32::from_le_bytes([message[at], message[at + 1], message[at + 2], 0]);
        // A block of a repeated byte holds only that byte.
        at += 3 + if header >> 1 & 3 == 1 { 1 } else { (header >> 3) as usize };
        ends.push(at);
    }
    assert_eq!(at, message.len());
    ends
}

#[test]
fn gw_049_vectors() {
    let mut inflater = inflater();
    assert_eq!(inflater.push(&hex(ZSTD_M1)), Ok(Some(M1.as_bytes())));
    assert_eq!(inflater.push(&hex(ZSTD_M2)), Ok(Some(M2.as_bytes())));
}

/// GW-051: only the first message of a connection has the magic number.
#[test]
fn gw_048_a_second_message_in_a_fresh_context() {
    assert_eq!(inflater().push(&hex(ZSTD_M2)), Err(InflateError::Corrupt { total_in: 0 }));
    let mut inflater = inflater();
    inflater.push(&hex(ZSTD_M1)).unwrap();
    let error = inflater.push(&hex(ZSTD_M1)).unwrap_err();
    assert!(matches!(error, InflateError::Corrupt { total_in: 69 }), "{error:?}");
    assert_eq!(inflater.push(&hex(ZSTD_M2)), Err(InflateError::ContextLost));
}

#[test]
fn gw_050_many_messages_in_one_frame() {
    // More data than the window holds, so that the window wraps.
    for (level, window_log) in [(1, 10), (3, 17), (6, 21), (19, 23)] {
        let mut encoder = Encoder::new(level, window_log);
        let mut inflater = inflater();
        for i in 0..1000 {
            let payload = match i % 10 {
                0 => noise(i),
                1 => prose(20 * i),
                _ => {
                    format!("{{\"op\":0,\"s\":{i},\"t\":\"MESSAGE_CREATE\",\"d\":{{\"id\":\"{}\"}}}}", i * i)
                        .into_bytes()
                }
            };
            if payload.is_empty() {
                continue;
            }
            let message = encoder.flush(&payload);
            assert!(inflater.push(&message) == Ok(Some(&payload)), "level {level}, message {i}");
        }
    }
}

/// Large payloads, and lengths around every possible size of the output buffer and of zstd's blocks, in one
/// context.
#[test]
fn gw_050_output_buffer_exactly_full() {
    let mut payloads = Vec::new();
    for size in [1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 20, LIMIT / 2] {
        for length in [size - 1, size, size + 1] {
            payloads.extend([vec![b'x'; length], prose(length), noise(length), M2.as_bytes().to_vec()]);
        }
    }
    let mut inflater = inflater();
    for (message, payload) in zstd(&payloads).iter().zip(&payloads) {
        let inflated = inflater.push(message).unwrap().unwrap();
        assert!(inflated == payload, "{} bytes became {}", payload.len(), inflated.len());
    }
}

/// A payload cannot span messages with this compression: each cut is noticed at once, also if some output was
/// produced.
#[test]
fn gw_049_a_message_that_ends_inside_of_its_payload() {
    let (first, second) = (hex(ZSTD_M1), hex(ZSTD_M2));
    // The first 6 bytes, the frame header, produce no output; the rest is a stored block.
    for cut in 0..first.len() {
        let mut inflater = inflater();
        let error = inflater.push(&first[..cut]).unwrap_err();
        assert!(matches!(error, InflateError::Truncated { .. }), "cut at {cut}: {error:?}");
        assert_eq!(inflater.push(&first[cut..]), Err(InflateError::ContextLost));
    }
    let ends = block_ends(&second);
    for cut in 0..second.len() {
        let mut inflater = inflater();
        inflater.push(&first).unwrap();
        match inflater.push(&second[..cut]) {
            Err(InflateError::Truncated { .. }) => assert!(!ends.contains(&cut)),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}

/// Only a cut between two blocks of one payload looks like the end of the payload.
#[test]
fn gw_049_a_large_message_that_ends_inside_of_its_payload() {
    for payload in [noise(300_000), prose(300_000)] {
        let mut encoder = Encoder::new(6, 21);
        let (first, second) = (encoder.flush(M1.as_bytes()), encoder.flush(&payload));
        let ends = block_ends(&second);
        assert!(ends.len() > 2, "{ends:?}");
        let near = ends.iter().flat_map(|end| end.saturating_sub(5)..end + 5);
        for cut in (0..second.len()).step_by(1009).chain(near).filter(|cut| *cut < second.len()) {
            let mut inflater = inflater();
            inflater.push(&first).unwrap();
            match inflater.push(&second[..cut]) {
                Ok(Some(part)) => assert!(ends.contains(&cut) && payload.starts_with(part), "cut at {cut}"),
                Err(InflateError::Truncated { .. }) => assert!(!ends.contains(&cut), "cut at {cut}"),
                other => panic!("cut at {cut}: {:?}", other.map(|part| part.map(<[u8]>::len))),
            }
        }
    }
}

#[test]
fn gw_049_a_message_without_a_payload() {
    let header = [&MAGIC[..], &[0, 0x58]].concat();
    let empty_block = [&header[..], &[0, 0, 0]].concat();
    for message in [&[][..], &MAGIC, &header, &empty_block] {
        assert_eq!(inflater().push(message), Err(InflateError::Truncated { total_in: message.len() as u64 }));
    }
    let mut inflater = inflater();
    inflater.push(&hex(ZSTD_M1)).unwrap();
    assert_eq!(inflater.push(&[]), Err(InflateError::Truncated { total_in: 69 }));
}

#[test]
fn gw_049_a_frame_that_ends_itself() {
    for checksummed in [false, true] {
        let encoder = || {
            let encoder = Encoder::new(6, 21);
            if checksummed { encoder.checksummed() } else { encoder }
        };
        // The frame ends with each payload, from servers that make each message a frame.
        let mut each = inflater();
        for payload in [M1, M2, M1] {
            assert_eq!(each.push(&encoder().end(payload.as_bytes())), Ok(Some(payload.as_bytes())));
        }
        // The frame ends after several payloads, and another one begins.
        let (mut inflater, mut first) = (inflater(), encoder());
        assert_eq!(inflater.push(&first.flush(M1.as_bytes())), Ok(Some(M1.as_bytes())));
        assert_eq!(inflater.push(&first.end(M2.as_bytes())), Ok(Some(M2.as_bytes())));
        let mut second = encoder();
        assert_eq!(inflater.push(&second.flush(M1.as_bytes())), Ok(Some(M1.as_bytes())));
        // A frame ends at the beginning of the next message, and another in the middle of one.
        let late = [second.end(b""), encoder().end(M2.as_bytes()), encoder().end(M1.as_bytes())].concat();
        assert_eq!(inflater.push(&late), Ok(Some(format!("{M2}{M1}").as_bytes())));
    }
}

#[test]
fn gw_049_a_frame_that_ends_without_a_payload() {
    let (mut inflater, mut encoder) = (inflater(), Encoder::new(6, 21));
    let (first, second) = (encoder.flush(M1.as_bytes()), encoder.end(b""));
    inflater.push(&first).unwrap();
    let total_in = (first.len() + second.len()) as u64;
    assert_eq!(inflater.push(&second), Err(InflateError::StreamEnd { total_in }));
    // A skippable frame is accepted like any other.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
    assert_eq!(self::inflater().push(&skippable), Err(InflateError::StreamEnd { total_in: 10 }));
}

/// Many frames in one message cannot exceed the limit of one payload.
#[test]
fn gw_054_frames_in_one_message_share_the_limit() {
    let frame = Encoder::new(6, 21).end(&[b'x'; 1000]);
    let mut inflater = Inflater::new(Compression::ZstdStream, 10_000).unwrap();
    assert_eq!(inflater.push(&frame.repeat(10)).unwrap().map(<[u8]>::len), Some(10_000));
    assert_eq!(inflater.push(&frame.repeat(11)), Err(InflateError::TooLarge { limit: 10_000 }));
}

/// Each flipped bit of either message causes an error with details or another payload, but no panic.
#[test]
fn gw_053_any_flipped_bit() {
    let mut refused = 0;
    let messages = [hex(ZSTD_M1), hex(ZSTD_M2), zstd(&[prose(2000)]).remove(0)];
    for (message, before) in [(&messages[0], None), (&messages[1], Some(&messages[0])), (&messages[2], None)]
    {
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut inflater = inflater();
            if let Some(before) = before {
                inflater.push(before).unwrap();
            }
            match inflater.push(&flipped) {
                Ok(Some(_)) => {}
                Err(
                    InflateError::Corrupt { .. }
                    | InflateError::Truncated { .. }
                    | InflateError::StreamEnd { .. }
                    | InflateError::WindowTooLarge { .. },
                ) => {
                    assert_eq!(inflater.push(message), Err(InflateError::ContextLost));
                    refused += 1;
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn gw_053_windows_above_8_mib() {
    // The window's descriptor: an exponent above 10, and eighths of it (RFC 8878, 3.1.1.1.2).
    for (descriptor, accepted) in
        [(0x00, true), (0x58, true), (0x68, true), (0x69, false), (0x70, false), (0xff, false)]
    {
        let message = [&MAGIC[..], &[0, descriptor], &BLOCK].concat();
        let expected = if accepted {
            Ok(Some(&b"{}"[..]))
        } else {
            Err(InflateError::WindowTooLarge { limit: 8 << 20 })
        };
        assert_eq!(inflater().push(&message), expected, "{descriptor:#x}");
    }
    // The window of a single-segment frame is its announced length.
    for (length, accepted) in [(8 << 20, true), ((8 << 20) + 1, false), (u32::MAX, false)] {
        let message = [&MAGIC[..], &[0xa0], &length.to_le_bytes(), &BLOCK].concat();
        assert_eq!(inflater().push(&message).is_ok(), accepted, "{length}");
    }
    let message = Encoder::new(6, 24).flush(&prose(100_000));
    let error = inflater().push(&message).unwrap_err();
    assert_eq!(error, InflateError::WindowTooLarge { limit: 8 << 20 });
    assert_eq!(error.to_string(), "the compressed stream needs a window above 8388608 bytes");
}

#[test]
fn gw_054_limits_hold_to_the_byte() {
    for limit in [64, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, 1 << 20] {
        let payloads = [vec![b'a'; limit], vec![b'b'; limit + 1]];
        let messages = zstd(&payloads);
        let mut inflater = Inflater::new(Compression::ZstdStream, limit).unwrap();
        assert!(inflater.push(&messages[0]) == Ok(Some(&payloads[0])), "{limit}");
        assert_eq!(inflater.push(&messages[1]), Err(InflateError::TooLarge { limit }), "{limit} + 1");
    }
    // The limit applies to the compressed form as well.
    let message = zstd(&[noise(1000)]).remove(0);
    for (limit, accepted) in [(message.len(), true), (message.len() - 1, false)] {
        let mut inflater = Inflater::new(Compression::ZstdStream, limit).unwrap();
        assert_eq!(inflater.push(&message).is_ok(), accepted);
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..300),
        ("[a-z\":{},0-9]{1,40}", 1..4000_usize).prop_map(|(text, times)| text.repeat(times).into_bytes()),
        (1..300_000_usize).prop_map(noise),
        (1..300_000_usize).prop_map(prose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random payloads, compressed with random settings, are returned unchanged.
    #[test]
    fn gw_050_any_payloads(
        payloads in prop::collection::vec(payload(), 1..8),
        level in -5..12_i32,
        window_log in 10..=23_u32,
    ) {
        let (mut inflater, mut encoder) = (inflater(), Encoder::new(level, window_log));
        for payload in &payloads {
            let message = encoder.flush(payload);
            prop_assert!(inflater.push(&message) == Ok(Some(payload)), "{} bytes", payload.len());
        }
    }

    /// Random input, with and without a valid start, causes an error or a payload within the limit, but no
    /// panic.
    #[test]
    fn gw_053_garbage(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        limit in 0..5000_usize,
        start in 0..3,
    ) {
        let mut inflater = Inflater::new(Compression::ZstdStream, limit).unwrap();
        if start == 1 {
            let _ = inflater.push(&hex(ZSTD_M1));
        }
        for (i, mut message) in messages.into_iter().enumerate() {
            if start == 2 && i == 0 {
                message.splice(..0, MAGIC);
            }
            if let Ok(payload) = inflater.push(&message) {
                prop_assert!((1..=limit).contains(&payload.unwrap().len()));
            }
        }
    }
}
