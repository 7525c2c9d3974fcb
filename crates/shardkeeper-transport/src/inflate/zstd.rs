//! `zstd-stream`: one zstd frame per connection, flushed after each payload (GW-048 to GW-051). Servers that
//! end the frame with each payload are accepted too.

use zstd_safe::zstd_sys::ZSTD_ErrorCode as ErrorCode;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::output::{Decompressor, End, Output, Step};
use crate::InflateError;

/// The largest accepted window, as a power of two: 8 MiB.
///
/// The peer chooses the window, and the decoder allocates it with the first message. A lower cap would not
/// save memory; it would only reject the peer. RFC 8878 (3.1.1.1.2) asks decoders to support 8 MiB and
/// encoders not to exceed it; levels 3 to 8, the usual ones, use 2 MiB. Only a hostile peer would profit from
/// a higher cap: zstd's own default is 128 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// How many bytes the decoder requests between two blocks: the header of the next one. A flush always ends a
/// block; within a block the decoder requests more than this, or the rest of the header.
///
/// zstd calls this number a hint. In fact it is exact, and the only sign that a message was cut off. In the
/// last block of a frame it may be 3 by chance. Discord sends no last block; from a server that does, a
/// truncated payload is found later, because it cannot be parsed.
const BLOCK_HEADER_BYTES: usize = 3;

pub(super) struct ZstdStream {
    decoder: Decoder,
}

struct Decoder {
    context: DCtx<'static>,
    total_in: u64,
    /// How many bytes the decoder requested at the end of the last call.
    wanted: usize,
}

impl ZstdStream {
    pub(super) fn new() -> Self {
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .expect("23 is within zstd's own bounds, and no frame has begun");
        Self { decoder: Decoder { context, total_in: 0, wanted: 0 } }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.decoder.total_in > 0
    }

    /// Inflates this message into `output`: each message is exactly one payload (GW-049).
    pub(super) fn push(&mut self, message: &[u8], output: &mut Output) -> Result<(), InflateError> {
        let end = output.fill(&mut self.decoder, message)?;
        let total_in = self.decoder.total_in;
        match end {
            End::Stream { .. } if output.payload().is_empty() => Err(InflateError::StreamEnd { total_in }),
            End::Stream { .. } => Ok(()),
            // A stored block is output as far as it has arrived, and a payload may have several blocks, so
            // some output does not prove that the payload is complete.
            End::Input if output.payload().is_empty() || self.decoder.wanted != BLOCK_HEADER_BYTES => {
                Err(InflateError::Truncated { total_in })
            }
            End::Input => Ok(()),
        }
    }
}

impl Decompressor for Decoder {
    fn total_in(&self) -> u64 {
        self.total_in
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        self.wanted = self
            .context
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| inflate_error(code, self.total_in))?;
        self.total_in += input.pos as u64;
        // A value other than 0 is normal: the frame lasts as long as the connection (GW-050). Input after the
        // end of a frame begins another frame.
        let ended = self.wanted == 0 && input.pos == input.src.len();
        Ok(Step { used: input.pos, made: output.pos(), ended })
    }
}

/// zstd returns its error codes negated.
fn inflate_error(code: usize, total_in: u64) -> InflateError {
    const WINDOW: usize = ErrorCode::ZSTD_error_frameParameter_windowTooLarge as usize;
    const MEMORY: usize = ErrorCode::ZSTD_error_memory_allocation as usize;
    match code.wrapping_neg() {
        WINDOW => InflateError::WindowTooLarge { limit: 1 << WINDOW_LOG_MAX },
        MEMORY => InflateError::OutOfMemory,
        _ => InflateError::Corrupt { total_in },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of one repeated byte takes 4 bytes and inflates to 128 KiB.
    #[test]
    fn gw_054_a_bomb_takes_no_more_than_the_limit() {
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
        for _ in 0..10_000 {
            let header = (128_u32 << 10) << 3 | 1 << 1;
            bomb.extend(&header.to_le_bytes()[..3]);
            bomb.push(0);
        }
        for limit in [1 << 16, 1 << 20] {
            let (mut zstd, mut output) = (ZstdStream::new(), Output::new(limit));
            assert_eq!(zstd.push(&bomb, &mut output), Err(InflateError::TooLarge { limit }));
            assert_eq!(output.payload().len(), limit + 1);
            // 2 MiB of window, plus the buffers of one block.
            assert!(zstd.decoder.context.sizeof() < 3 << 20);
        }
    }

    /// The figures in the documentation of [`Compression::ZstdStream`](crate::Compression::ZstdStream).
    #[test]
    fn memory_is_that_of_the_window() {
        assert!(ZstdStream::new().decoder.context.sizeof() < 100_000);
        for (descriptor, window) in [(0x38, 128 << 10), (0x58, 2 << 20), (0x68, 8 << 20)] {
            let mut zstd = ZstdStream::new();
            let message = [0x28, 0xb5, 0x2f, 0xfd, 0, descriptor, 2 << 3, 0, 0, b'{', b'}'];
            zstd.push(&message, &mut Output::new(1 << 20)).unwrap();
            let size = zstd.decoder.context.sizeof();
            assert!(size < window + 500_000, "{size} bytes for a window of {window}");
        }
    }
}
