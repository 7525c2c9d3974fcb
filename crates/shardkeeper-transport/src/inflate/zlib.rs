//! `zlib-stream`: one deflate context per connection, flushed after each payload (GW-043 to GW-047).

use flate2::{Decompress, FlushDecompress, Status};

use super::output::{Decompressor, End, Output, Step};
use crate::InflateError;

/// The end of each payload: the empty stored block of a Z_SYNC_FLUSH (GW-044).
const SYNC_FLUSH: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

pub(super) struct ZlibStream {
    inflate: Decompress,
    /// The parts of an incomplete payload. Empty in the usual case of one message per payload.
    pending: Vec<u8>,
}

impl ZlibStream {
    pub(super) fn new() -> Self {
        Self { inflate: Decompress::new(true), pending: Vec::new() }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.inflate.total_in() > 0 || !self.pending.is_empty()
    }

    /// Takes one message. Returns whether `output` is now a new payload.
    pub(super) fn push(&mut self, message: &[u8], output: &mut Output) -> Result<bool, InflateError> {
        // The suffix is searched in the collected bytes: a message of 1 to 3 bytes may complete it (GW-045).
        if self.pending.is_empty() && message.ends_with(&SYNC_FLUSH) {
            self.inflate(message, output)?;
            return Ok(true);
        }
        if message.len() > output.limit() - self.pending.len() {
            return Err(output.too_large());
        }
        self.pending.extend_from_slice(message);
        if !self.pending.ends_with(&SYNC_FLUSH) {
            return Ok(false);
        }
        let mut input = std::mem::take(&mut self.pending);
        self.inflate(&input, output)?;
        if input.capacity() <= output.resting() {
            input.clear();
            self.pending = input;
        }
        Ok(true)
    }

    fn inflate(&mut self, input: &[u8], output: &mut Output) -> Result<(), InflateError> {
        match output.fill(&mut self.inflate, input)? {
            End::Input => Ok(()),
            End::Stream { .. } => Err(InflateError::StreamEnd { total_in: self.inflate.total_in() }),
        }
    }
}

impl Decompressor for Decompress {
    fn total_in(&self) -> u64 {
        Decompress::total_in(self)
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
        let (in_before, out_before) = (self.total_in(), self.total_out());
        // `BufError` is not a failure here: it only means that there was nothing left to do.
        let status = self
            .decompress(input, output, FlushDecompress::Sync)
            .map_err(|_| InflateError::Corrupt { total_in: in_before })?;
        Ok(Step {
            // Both differences are bounded by the lengths of the slices just passed.
            used: (self.total_in() - in_before) as usize,
            made: (self.total_out() - out_before) as usize,
            ended: status == Status::StreamEnd,
        })
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, FlushCompress};

    use super::*;

    fn frame(context: &mut Compress, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(payload.len() + 1024);
        context.compress_vec(payload, &mut frame, FlushCompress::Sync).unwrap();
        assert!(frame.ends_with(&SYNC_FLUSH));
        frame
    }

    /// The buffer that collected the parts of a large payload is released.
    #[test]
    fn gw_044_the_collected_parts_are_given_back() {
        let mut context = Compress::new(flate2::Compression::new(6), true);
        let (mut zlib, mut output) = (ZlibStream::new(), Output::new(1 << 20));
        let large = frame(&mut context, &(0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let (head, tail) = large.split_at(large.len() / 2);
        assert!(!zlib.push(head, &mut output).unwrap());
        assert!(zlib.push(tail, &mut output).unwrap());
        assert_eq!(output.payload().len(), 800_000);
        assert_eq!(zlib.pending.capacity(), 0);
        assert!(zlib.push(&frame(&mut context, b"{}"), &mut output).unwrap());
        assert_eq!(output.payload(), b"{}");
    }

    /// Deflate expands up to 1,032 times.
    #[test]
    fn gw_054_a_bomb_takes_no_more_than_the_limit() {
        let mut context = Compress::new(flate2::Compression::new(9), true);
        let bomb = frame(&mut context, &vec![0; 50 << 20]);
        assert!(bomb.len() < 60_000);
        let (mut zlib, mut output) = (ZlibStream::new(), Output::new(1 << 20));
        assert_eq!(zlib.push(&bomb, &mut output), Err(InflateError::TooLarge { limit: 1 << 20 }));
        assert!(output.payload().len() <= (1 << 20) + 1);
    }
}
