//! The inflater with `zlib-stream`: test vectors, splits, limits and invalid data (GW-043 to GW-047, GW-053,
//! GW-054).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::samples::{M1, M2, WHOLE_M1, ZLIB_M1, ZLIB_M2, deflate, hex, noise};
use proptest::prelude::*;
use shardkeeper_transport::{Compression, InflateError, Inflater};

const LIMIT: usize = 1 << 20;

fn inflater() -> Inflater {
    Inflater::new(Compression::ZlibStream, LIMIT).unwrap()
}

#[test]
fn vectors() {
    let mut inflater = inflater();
    assert_eq!(inflater.push(&hex(ZLIB_M1)), Ok(Some(M1.as_bytes())));
    // GW-043: one inflate context is shared by all messages of a connection.
    assert_eq!(inflater.push(&hex(ZLIB_M2)), Ok(Some(M2.as_bytes())));
}

#[test]
fn no_compression_has_no_inflater() {
    assert!(Inflater::new(Compression::None, LIMIT).is_none());
}

#[test]
fn gw_010_query_values() {
    assert_eq!(Compression::None.query_value(), None);
    assert_eq!(Compression::ZlibStream.query_value(), Some("zlib-stream"));
    #[cfg(feature = "zstd")]
    assert_eq!(Compression::ZstdStream.query_value(), Some("zstd-stream"));
    // GW-040: payload compression is not combined with transport compression.
    assert_eq!(Compression::Payload.query_value(), None);
}

#[test]
fn debug_shows_no_payload() {
    let mut inflater = inflater();
    inflater.push(&hex(ZLIB_M1)).unwrap();
    let shown = format!("{inflater:?}");
    assert_eq!(shown, "Inflater { compression: ZlibStream, limit: 1048576, failed: false, .. }");
}

/// GW-045: the suffix may be split anywhere, also 2 + 2 and 3 + 1.
#[test]
fn every_split_of_both_vectors() {
    for first in 0..=hex(ZLIB_M1).len() {
        for second in 0..=hex(ZLIB_M2).len() {
            let mut inflater = inflater();
            for (frame, at, payload) in [(hex(ZLIB_M1), first, M1), (hex(ZLIB_M2), second, M2)] {
                let (head, tail) = frame.split_at(at);
                if tail.is_empty() {
                    assert_eq!(inflater.push(head), Ok(Some(payload.as_bytes())));
                    continue;
                }
                assert_eq!(inflater.push(head), Ok(None));
                assert_eq!(inflater.push(tail), Ok(Some(payload.as_bytes())));
            }
        }
    }
}

#[test]
fn byte_by_byte_and_over_three_frames() {
    let mut inflater = inflater();
    // GW-044: one payload may span several WebSocket messages.
    let frame = hex(ZLIB_M1);
    for byte in &frame[..frame.len() - 1] {
        assert_eq!(inflater.push(std::slice::from_ref(byte)), Ok(None));
    }
    assert_eq!(inflater.push(&frame[frame.len() - 1..]), Ok(Some(M1.as_bytes())));

    let frame = hex(ZLIB_M2);
    assert_eq!(inflater.push(&frame[..4]), Ok(None));
    assert_eq!(inflater.push(&[]), Ok(None));
    assert_eq!(inflater.push(&frame[4..9]), Ok(None));
    assert_eq!(inflater.push(&frame[9..]), Ok(Some(M2.as_bytes())));
}

/// GW-046: lengths around every possible size of the output buffer, in one context.
#[test]
fn output_buffer_exactly_full() {
    let mut payloads = Vec::new();
    for size in [1 << 14, 1 << 15, 1 << 16, 1 << 17, LIMIT] {
        for length in [size - 1, size, size + 1] {
            if length <= LIMIT {
                payloads.push(vec![b'x'; length]);
                payloads.push(M1.as_bytes().repeat(length / M1.len() + 1)[..length].to_vec());
            }
            // Compressed noise is slightly longer than the noise, and the limit applies to it too.
            if length < LIMIT / 2 {
                payloads.push(noise(length));
            }
        }
    }
    let mut inflater = inflater();
    for (frame, payload) in deflate(&payloads).iter().zip(&payloads) {
        let inflated = inflater.push(frame).unwrap().unwrap();
        assert!(inflated == payload, "{} bytes became {}", payload.len(), inflated.len());
    }
}

#[test]
fn above_the_limit() {
    let payload = vec![b'x'; LIMIT + 1];
    let mut inflater = inflater();
    // GW-054: the decompressed size of one payload is bounded.
    assert_eq!(inflater.push(&deflate(&[&payload])[0]), Err(InflateError::TooLarge { limit: LIMIT }));
    assert_eq!(inflater.push(&hex(ZLIB_M1)), Err(InflateError::ContextLost));
}

#[test]
fn input_that_never_ends_a_payload_is_bounded() {
    let mut inflater = inflater();
    let part = vec![7; 100_000];
    for _ in 0..LIMIT / part.len() {
        assert_eq!(inflater.push(&part), Ok(None));
    }
    // GW-054: the size of one payload is bounded.
    assert_eq!(inflater.push(&part), Err(InflateError::TooLarge { limit: LIMIT }));
}

/// GW-053: any error invalidates the context for good.
#[test]
fn corrupt_streams() {
    let mut flipped = hex(ZLIB_M1);
    flipped[0] ^= 0xff;
    let mut inflater_1 = inflater();
    assert_eq!(inflater_1.push(&flipped), Err(InflateError::Corrupt { total_in: 0 }));
    assert_eq!(inflater_1.push(&hex(ZLIB_M1)), Err(InflateError::ContextLost));

    // GW-047: only the first payload of a connection has the header.
    let mut inflater_2 = inflater();
    assert!(matches!(inflater_2.push(&hex(ZLIB_M2)), Err(InflateError::Corrupt { .. })));
    // GW-043: all messages of a connection share its context, so a second header is corrupt data.
    let mut inflater_3 = inflater();
    inflater_3.push(&hex(ZLIB_M1)).unwrap();
    let error = inflater_3.push(&hex(ZLIB_M1)).unwrap_err();
    assert!(matches!(error, InflateError::Corrupt { total_in: 62.. }), "{error:?}");
    assert!(!error.to_string().contains("heartbeat"));
}

/// Each flipped bit of the second message causes an error with details or another payload, but no panic.
#[test]
fn gw_053_any_flipped_bit() {
    for bit in 0..hex(ZLIB_M2).len() * 8 {
        let mut message = hex(ZLIB_M2);
        message[bit / 8] ^= 1 << (bit % 8);
        let mut inflater = inflater();
        inflater.push(&hex(ZLIB_M1)).unwrap();
        match inflater.push(&message) {
            Ok(_) => {}
            Err(InflateError::Corrupt { total_in } | InflateError::StreamEnd { total_in }) => {
                assert!((62..=62 + 15).contains(&total_in), "bit {bit}: {total_in}");
                assert_eq!(inflater.push(b""), Err(InflateError::ContextLost));
            }
            Err(error) => panic!("bit {bit}: {error:?}"),
        }
    }
}

#[test]
fn a_stream_that_ends_itself() {
    let mut ended = hex(WHOLE_M1);
    ended.extend([0, 0, 0xff, 0xff]);
    assert_eq!(inflater().push(&ended), Err(InflateError::StreamEnd { total_in: WHOLE_M1.len() as u64 / 2 }));
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        // Never empty: a second flush without data in between has no bytes at all.
        prop::collection::vec(any::<u8>(), 1..300),
        ("[a-z\":{},0-9]{1,40}", 1..4000_usize).prop_map(|(text, times)| text.repeat(times).into_bytes()),
        (1..100_000_usize).prop_map(noise),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random payloads, split anywhere, are returned unchanged.
    #[test]
    fn splits_change_nothing(
        payloads in prop::collection::vec(payload(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut inflater = inflater();
        for (frame, payload) in deflate(&payloads).iter().zip(&payloads) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(frame.len())).collect();
            at.sort_unstable();
            // A part must not end like a payload: the protocol cannot distinguish four such bytes from the
            // suffix.
            at.retain(|&cut| !frame[..cut].ends_with(&[0, 0, 0xff, 0xff]));
            let mut from = 0;
            for cut in at {
                prop_assert_eq!(inflater.push(&frame[from..cut]), Ok(None));
                from = cut;
            }
            prop_assert_eq!(inflater.push(&frame[from..]), Ok(Some(payload.as_slice())));
        }
    }

    /// Random input causes an error or a payload within the limit, but no panic.
    #[test]
    fn garbage_is_refused(
        frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 1..20),
        limit in 0..5000_usize,
        honest_start in any::<bool>(),
    ) {
        let mut inflater = Inflater::new(Compression::ZlibStream, limit).unwrap();
        if honest_start {
            let _ = inflater.push(&hex(ZLIB_M1));
        }
        for (mut frame, ended) in frames {
            if ended {
                frame.extend([0, 0, 0xff, 0xff]);
            }
            if let Ok(Some(payload)) = inflater.push(&frame) {
                prop_assert!(payload.len() <= limit);
            }
        }
    }
}
