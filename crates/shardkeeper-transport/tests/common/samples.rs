//! Payloads and their compressed forms.

use std::io::Write;

use flate2::write::ZlibEncoder;
use flate2::{Compress, FlushCompress};

pub(crate) const M1: &str = r#"{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250}}"#;
pub(crate) const M2: &str = r#"{"t":null,"s":null,"op":11,"d":null}"#;

// Hand-made streams, by the rules GW-041 to GW-051.
pub(crate) const ZLIB_M1: &str = "789caa562a51b2ca2bcdc9d1512a8631f20b94ac0c0d74945294acaa953252138b4a9252134be233f34a528bca127394ac4c0c8d4c0d6a6b01000000ffff";
pub(crate) const ZLIB_M2: &str = "aac6a5d710ac1724500b000000ffff";
pub(crate) const ZSTD_M1: &str = "28b52ffd0058e001007b2274223a6e756c6c2c2273223a6e756c6c2c226f70223a31302c2264223a7b226865617274626561745f696e74657276616c223a34313235307d7d";
pub(crate) const ZSTD_M2: &str = "74000030316e756c6c7d02004090bf2820";
/// A whole zlib stream, as sent with payload compression.
pub(crate) const WHOLE_M1: &str = "789cab562a51b2ca2bcdc9d1512a8631f20b94ac0c0d74945294acaa953252138b4a9252134be233f34a528bca127394ac4c0c8d4c0d6a6b01438e135c";

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Incompressible bytes, the same in each run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Text that compresses about as well as JSON.
pub(crate) fn prose(length: usize) -> Vec<u8> {
    noise(length / 4 + 1)
        .iter()
        .flat_map(|byte| format!("{{\"{:x}\":{byte}}},", byte % 16).into_bytes())
        .take(length)
        .collect()
}

/// Compresses for `zlib-stream`: each payload ended by a sync flush, in one shared context.
pub(crate) fn deflate<P: AsRef<[u8]>>(payloads: &[P]) -> Vec<Vec<u8>> {
    let mut context = Compress::new(flate2::Compression::new(6), true);
    payloads
        .iter()
        .map(|payload| {
            let mut message = Vec::with_capacity(payload.as_ref().len() + 1024);
            context.compress_vec(payload.as_ref(), &mut message, FlushCompress::Sync).unwrap();
            assert!(message.len() < message.capacity());
            message
        })
        .collect()
}

/// Compresses for payload compression: a zlib stream of its own.
pub(crate) fn whole(payload: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

#[cfg(feature = "zstd")]
pub(crate) mod zstd {
    use zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
    use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, compress_bound};

    /// The sending side of `zstd-stream`.
    pub(crate) struct Encoder(CCtx<'static>);

    impl Encoder {
        pub(crate) fn new(level: i32, window_log: u32) -> Self {
            let mut context = CCtx::create();
            context.set_parameter(CParameter::CompressionLevel(level)).unwrap();
            context.set_parameter(CParameter::WindowLog(window_log)).unwrap();
            Self(context)
        }

        pub(crate) fn checksummed(mut self) -> Self {
            self.0.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
            self
        }

        /// Compresses a payload and leaves the frame open after it (GW-049).
        pub(crate) fn flush(&mut self, payload: &[u8]) -> Vec<u8> {
            self.encode(payload, Directive::ZSTD_e_flush)
        }

        /// Compresses a payload and ends the frame after it, which Discord never does.
        pub(crate) fn end(&mut self, payload: &[u8]) -> Vec<u8> {
            self.encode(payload, Directive::ZSTD_e_end)
        }

        fn encode(&mut self, payload: &[u8], directive: Directive) -> Vec<u8> {
            let mut message = vec![0; compress_bound(payload.len()) + 1024];
            let mut output = OutBuffer::around(&mut message[..]);
            let mut input = InBuffer::around(payload);
            while self.0.compress_stream2(&mut output, &mut input, directive).unwrap() != 0 {}
            assert_eq!(input.pos, payload.len());
            let length = output.pos();
            message.truncate(length);
            message
        }
    }

    /// Compresses for `zstd-stream` with the settings of zstd's level 6, all payloads in one frame.
    pub(crate) fn zstd<P: AsRef<[u8]>>(payloads: &[P]) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(6, 21);
        payloads.iter().map(|payload| encoder.flush(payload.as_ref())).collect()
    }
}
