//! `zstd-stream`: one zstd frame per connection, flushed behind each payload (GW-048 to GW-051). Servers that end the
//! frame with each payload are understood too.

use zstd_safe::zstd_sys::ZSTD_ErrorCode as ErrorCode;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::output::{Decompressor, End, Output, Step};
use crate::InflateError;

/// The largest window that is accepted, as a power of two: 8 MiB.
///
/// The peer chooses the window, and the decoder allocates it with the first message: a tighter cap does not save
/// memory, it only refuses the peer. 8 MiB is what RFC 8878 (3.1.1.1.2) asks decoders to support and encoders not to
/// exceed; levels 3 to 8, the usual ones, take 2 MiB. Only a hostile peer would gain by more: zstd's own default cap is
/// 128 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// What the decoder asks for between two blocks: the header of the next one. A flush always ends a block, and inside of
/// one the decoder asks for more than this or for the rest of the header.
///
/// zstd calls the number a hint. It is exact, and the only sign of a message that was cut off. In the last block of a
/// frame it may be 3 by chance; Discord sends none, and from a server that does, what is left of the payload cannot be
/// parsed.
const BLOCK_HEADER_BYTES: usize = 3;

pub(super) struct ZstdStream {
    decoder: Decoder,
}

struct Decoder {
    context: DCtx<'static>,
    total_in: u64,
    /// How many bytes the decoder asked for at the end of the last call.
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

    /// Makes `output` the payload of this message: each message is exactly one (GW-049).
    pub(super) fn push(&mut self, message: &[u8], output: &mut Output) -> Result<(), InflateError> {
        let end = output.fill(&mut self.decoder, message)?;
        let total_in = self.decoder.total_in;
        match end {
            End::Stream { .. } if output.payload().is_empty() => Err(InflateError::StreamEnd { total_in }),
            End::Stream { .. } => Ok(()),
            // A stored block comes out as far as it came in, and a payload may have several blocks: that there is some
            // output does not say that this is all of it.
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
        // Not 0 is the normal case: the frame lasts as long as the connection (GW-050). What stands behind the end of a frame
        // begins another one.
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

    /// A block of one repeated byte has 4 bytes and makes 128 KiB.
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
            // 2 MiB of window, and what a block takes.
            assert!(zstd.decoder.context.sizeof() < 3 << 20);
        }
    }

    /// The figures that [`Compression::ZstdStream`](crate::Compression::ZstdStream) gives.
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
