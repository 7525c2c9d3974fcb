//! The inflater with payload compression: each message by itself (GW-041, GW-042, GW-053, GW-054).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::samples::{M1, M2, WHOLE_M1, ZLIB_M1, hex, noise, whole};
use proptest::prelude::*;
use shardkeeper_transport::{Compression, InflateError, Inflater};

const LIMIT: usize = 1 << 20;

fn inflater() -> Inflater {
    Inflater::new(Compression::Payload, LIMIT).unwrap()
}

/// Messages share no context: any order works, and the same message may be repeated.
#[test]
fn gw_041_each_message_is_whole() {
    let (m1, m2) = (hex(WHOLE_M1), whole(M2.as_bytes()));
    let mut inflater = inflater();
    for (message, payload) in [(&m2, M2), (&m1, M1), (&m1, M1), (&m2, M2)] {
        assert_eq!(inflater.push(message), Ok(Some(payload.as_bytes())));
    }
}

#[test]
fn gw_042_messages_that_are_no_zlib_stream_are_payloads() {
    let mut inflater = inflater();
    for plain in [M1.as_bytes(), b"", b"\x83\x68\x00", &noise(100_000), &noise(LIMIT), b"{}"] {
        assert_ne!(plain.first(), Some(&0x78));
        assert!(inflater.push(plain) == Ok(Some(plain)), "{} bytes", plain.len());
        assert_eq!(inflater.push(&hex(WHOLE_M1)), Ok(Some(M1.as_bytes())));
    }
}

#[test]
fn gw_041_a_stream_must_end_with_its_message() {
    let message = hex(WHOLE_M1);
    for length in 1..message.len() {
        let error = inflater().push(&message[..length]).unwrap_err();
        assert_eq!(error, InflateError::Truncated { total_in: length as u64 });
    }
    // A `zlib-stream` message, whose stream never ends.
    assert_eq!(inflater().push(&hex(ZLIB_M1)), Err(InflateError::Truncated { total_in: 62 }));
}

#[test]
fn gw_041_nothing_may_follow_the_stream() {
    for behind in [&[0][..], &hex(WHOLE_M1), &noise(70_000)] {
        let message = [&hex(WHOLE_M1), behind].concat();
        assert_eq!(inflater().push(&message), Err(InflateError::Corrupt { total_in: 61 }));
    }
}

/// The checksum finds each flipped bit, except in bits that are not used.
#[test]
fn gw_053_any_flipped_bit() {
    let message = hex(WHOLE_M1);
    let mut refused = 0;
    for bit in 0..message.len() * 8 {
        let mut flipped = message.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut inflater = inflater();
        match inflater.push(&flipped) {
            // The first byte tells whether the message is compressed at all, and deflate pads its last byte.
            Ok(Some(payload)) => assert!(bit < 8 || payload == M1.as_bytes(), "bit {bit}"),
            Ok(None) => panic!("bit {bit}: every message is a payload"),
            Err(InflateError::Corrupt { .. } | InflateError::Truncated { .. }) => {
                assert_eq!(inflater.push(&message), Err(InflateError::ContextLost));
                refused += 1;
            }
            Err(error) => panic!("bit {bit}: {error:?}"),
        }
    }
    assert!(refused > message.len() * 8 - 16, "{refused}");
}

#[test]
fn gw_054_limits_hold_to_the_byte() {
    for limit in [20, 100, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 1 << 17, LIMIT] {
        let at = vec![b'a'; limit];
        let above = vec![b'a'; limit + 1];
        let too_large = Err(InflateError::TooLarge { limit });
        let inflater = || Inflater::new(Compression::Payload, limit).unwrap();
        assert!(inflater().push(&whole(&at)) == Ok(Some(&at)), "{limit} compressed");
        assert_eq!(inflater().push(&whole(&above)), too_large, "{limit} + 1 compressed");
        assert!(inflater().push(&at) == Ok(Some(&at)), "{limit} plain");
        assert_eq!(inflater().push(&above), too_large, "{limit} + 1 plain");
    }
    let bomb = whole(&vec![0; 50 << 20]);
    assert_eq!(inflater().push(&bomb), Err(InflateError::TooLarge { limit: LIMIT }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random payloads, compressed or not, are returned unchanged.
    #[test]
    fn gw_042_any_mixture(
        payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5000), any::<bool>()), 1..20),
    ) {
        let mut inflater = inflater();
        for (payload, compressed) in payloads {
            let message = if compressed || payload.first() == Some(&0x78) { whole(&payload) } else { payload.clone() };
            prop_assert_eq!(inflater.push(&message), Ok(Some(payload.as_slice())));
        }
    }

    /// Random input causes an error or a payload within the limit, but no panic.
    #[test]
    fn gw_053_garbage(garbage in prop::collection::vec(any::<u8>(), 0..300), limit in 0..5000_usize) {
        for header in [&b"\x78\x9c"[..], b"\x78", b""] {
            let mut inflater = Inflater::new(Compression::Payload, limit).unwrap();
            if let Ok(payload) = inflater.push(&[header, &garbage].concat()) {
                prop_assert!(payload.unwrap().len() <= limit);
            }
        }
    }
}
