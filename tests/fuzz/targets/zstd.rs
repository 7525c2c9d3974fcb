//! `zstd-stream`: any messages cost bounded memory and never panic; what a compressor made comes out as it went in, and
//! with one byte changed it comes out changed, or not at all.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardkeeper_transport::{Compression, Inflater};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, InBuffer, OutBuffer};

const LIMIT: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let [cut, at, put, rest @ ..] = bytes else { return };
    let piece = usize::from(*cut).max(1);
    let mut inflater = inflater();
    for message in rest.chunks(piece) {
        match inflater.push(message) {
            Ok(Some(payload)) => assert!(payload.len() <= LIMIT),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    let mut context = CCtx::create();
    let (mut sound, mut mangled) = (self::inflater(), self::inflater());
    for payload in rest.chunks(piece * 16) {
        let message = compressed(&mut context, payload);
        assert_eq!(sound.push(&message), Ok(Some(payload)));
        let mut message = message;
        let at = usize::from(*at) % message.len();
        message[at] ^= put;
        if let Ok(Some(payload)) = mangled.push(&message) {
            assert!(payload.len() <= LIMIT);
        }
    }
});

fn inflater() -> Inflater {
    Inflater::new(Compression::ZstdStream, LIMIT).expect("it compresses")
}

fn compressed(context: &mut CCtx<'_>, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() * 2 + 1024];
    let mut output = OutBuffer::around(&mut out[..]);
    let mut input = InBuffer::around(payload);
    let left = context
        .compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_flush)
        .expect("it has room");
    assert_eq!(left, 0);
    output.as_slice().to_vec()
}
