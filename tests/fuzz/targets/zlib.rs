//! `zlib-stream` and payload compression: any frames, cut anywhere, cost bounded memory and never panic; a stream of
//! our own comes out as it went in.

#![no_main]

use flate2::{Compress, FlushCompress};
use libfuzzer_sys::fuzz_target;
use shardkeeper_transport::{Compression, Inflater};

const LIMIT: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, rest)) = bytes.split_first() else { return };
    let piece = usize::from(cut).max(1);
    for compression in [Compression::ZlibStream, Compression::Payload] {
        let mut inflater = Inflater::new(compression, LIMIT).expect("it compresses");
        for frame in rest.chunks(piece) {
            match inflater.push(frame) {
                Ok(Some(payload)) => assert!(payload.len() <= LIMIT),
                Ok(None) => {}
                Err(_) => break,
            }
        }
    }
    let mut deflate = Compress::new(flate2::Compression::fast(), true);
    let mut inflater = Inflater::new(Compression::ZlibStream, LIMIT).expect("it compresses");
    for payload in rest.chunks(piece * 16) {
        let mut frame = Vec::with_capacity(payload.len() * 2 + 64);
        deflate.compress_vec(payload, &mut frame, FlushCompress::Sync).expect("it has room");
        let (head, tail) = frame.split_at(frame.len() * piece / 256);
        let mut got = inflater.push(head).expect("our own stream is sound").map(<[u8]>::to_vec);
        if let Some(payload) = inflater.push(tail).expect("our own stream is sound") {
            got = Some(payload.to_vec());
        }
        assert_eq!(got.as_deref(), Some(payload));
    }
});
