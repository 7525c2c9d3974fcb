//! The bounded buffer that payloads are inflated into, and the loop that fills it.

use crate::InflateError;

/// The size of the resting output buffer, in bytes. With the 48 KB of a deflate context an idle connection
/// holds 64 KB. The median payload is below 1 KB; the few above 16 KiB grow the buffer for the time of one
/// payload.
const RESTING_BYTES: usize = 16 << 10;

/// The expected ratio of output to input. Gateway JSON compresses about 5.3 : 1 with zlib and 6.7 : 1 with
/// zstd, so a buffer of this multiple rarely needs to grow again. The part that is not written to stays
/// untouched zero pages.
const EXPECTED_RATIO: usize = 8;

/// A decompressor that fills the buffer.
pub(super) trait Decompressor {
    /// How many compressed bytes were inflated so far.
    fn total_in(&self) -> u64;

    /// Inflates from the start of `input` to the start of `output`, until either is used up.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError>;
}

/// The result of one call to `step`.
pub(super) struct Step {
    /// How many bytes were taken from the input.
    pub(super) used: usize,
    /// How many bytes were written to the output.
    pub(super) made: usize,
    /// The compressed stream declared its end, and all of its output is written.
    pub(super) ended: bool,
}

/// Why [`Output::fill`] stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All input is used and no more output is pending.
    Input,
    /// The compressed stream declared its end, with this many bytes of input left.
    Stream { unused: usize },
}

/// A payload and its buffer.
pub(super) struct Output {
    /// Always initialised to its full length: the decompressors write into slices, and the spare capacity of
    /// a `Vec` would be filled with zeros on each call.
    bytes: Vec<u8>,
    filled: usize,
    limit: usize,
    resting: usize,
}

impl Output {
    pub(super) fn new(limit: usize) -> Self {
        // One byte more than allowed, to distinguish a payload of exactly `limit` from a longer one.
        let resting = RESTING_BYTES.min(limit.saturating_add(1));
        Self { bytes: vec![0; resting], filled: 0, limit, resting }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn resting(&self) -> usize {
        self.resting
    }

    pub(super) fn too_large(&self) -> InflateError {
        InflateError::TooLarge { limit: self.limit }
    }

    /// Inflates until all input is used **and** the output was not filled to its end: a full buffer may hide
    /// pending output (GW-046, GW-050).
    pub(super) fn fill(
        &mut self,
        source: &mut impl Decompressor,
        mut input: &[u8],
    ) -> Result<End, InflateError> {
        self.prepare(input.len());
        loop {
            let total_in = source.total_in();
            let step = source.step(input, &mut self.bytes[self.filled..])?;
            input = &input[step.used..];
            self.filled += step.made;
            if self.filled > self.limit {
                return Err(self.too_large());
            }
            if step.ended {
                return Ok(End::Stream { unused: input.len() });
            }
            if self.filled == self.bytes.len() {
                self.grow();
            } else if input.is_empty() {
                return Ok(End::Input);
            } else if step.used == 0 && step.made == 0 {
                return Err(InflateError::Corrupt { total_in });
            }
        }
    }

    /// Stores an uncompressed payload. The caller has checked its length against the limit.
    pub(super) fn copy(&mut self, payload: &[u8]) {
        if payload.len() > self.bytes.len() {
            self.bytes = vec![0; payload.len()];
        }
        self.bytes[..payload.len()].copy_from_slice(payload);
        self.filled = payload.len();
    }

    /// Releases the memory of a large payload.
    pub(super) fn rest(&mut self) {
        if self.bytes.len() > self.resting {
            self.bytes = vec![0; self.resting];
            self.filled = 0;
        }
    }

    /// Makes room for the expected output. The size is in proportion to received bytes, so a decompression
    /// bomb gains nothing.
    fn prepare(&mut self, input: usize) {
        self.filled = 0;
        let expected = input.saturating_mul(EXPECTED_RATIO).min(self.limit.saturating_add(1));
        if expected > self.bytes.len() {
            // A new vector instead of `resize`: fresh zero pages cost less than a copy and a fill.
            self.bytes = vec![0; expected];
        }
    }

    fn grow(&mut self) {
        // Never above `limit + 1`: a full buffer of that length is already an error.
        let target = self.bytes.len().saturating_mul(2).min(self.limit.saturating_add(1));
        self.bytes.resize(target, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inflates each byte of input to `ratio` bytes, and holds one input byte back until there is room.
    struct Repeat {
        ratio: usize,
        pending: usize,
        total_in: u64,
    }

    impl Decompressor for Repeat {
        fn total_in(&self) -> u64 {
            self.total_in
        }

        fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, InflateError> {
            self.pending += input.len() * self.ratio;
            self.total_in += input.len() as u64;
            let made = self.pending.min(output.len());
            output[..made].fill(b'a');
            self.pending -= made;
            Ok(Step { used: input.len(), made, ended: false })
        }
    }

    fn repeat(ratio: usize) -> Repeat {
        Repeat { ratio, pending: 0, total_in: 0 }
    }

    /// The buffer grows with the pending output, stops at the limit, and returns to its resting size.
    #[test]
    fn gw_054_the_buffer_is_bounded_and_returns_to_rest() {
        let limit = 1 << 20;
        let mut output = Output::new(limit);
        assert_eq!(output.bytes.len(), RESTING_BYTES);
        assert_eq!(output.fill(&mut repeat(limit), b"1"), Ok(End::Input));
        assert_eq!((output.filled, output.bytes.len()), (limit, limit + 1));
        output.rest();
        assert_eq!((output.payload(), output.bytes.len()), (&[][..], RESTING_BYTES));
        assert_eq!(output.fill(&mut repeat(limit + 1), b"1"), Err(output.too_large()));
        assert_eq!(output.bytes.len(), limit + 1);
        output.rest();
        assert_eq!(output.fill(&mut repeat(usize::MAX), b"1"), Err(output.too_large()));
        assert_eq!(output.bytes.len(), limit + 1);
    }

    /// GW-046, GW-050: an exactly full buffer does not prove that the payload is complete.
    #[test]
    fn gw_046_a_full_buffer_may_hide_more() {
        for ratio in [RESTING_BYTES - 1, RESTING_BYTES, RESTING_BYTES + 1, 2 * RESTING_BYTES] {
            let mut output = Output::new(1 << 20);
            assert_eq!(output.fill(&mut repeat(ratio), b"1"), Ok(End::Input));
            assert_eq!(output.filled, ratio);
        }
    }

    /// A limit below the resting size of the buffer still applies.
    #[test]
    fn gw_054_limits_below_the_resting_size_hold() {
        for limit in [0, 1, 2, 100] {
            let mut output = Output::new(limit);
            assert_eq!(output.bytes.len(), limit + 1);
            assert_eq!(output.fill(&mut repeat(limit), b"1"), Ok(End::Input));
            assert_eq!(output.filled, limit);
            assert_eq!(output.fill(&mut repeat(limit + 1), b"1"), Err(output.too_large()));
        }
    }

    #[test]
    fn a_decompressor_that_is_stuck_is_left() {
        struct Stuck;
        impl Decompressor for Stuck {
            fn total_in(&self) -> u64 {
                7
            }
            fn step(&mut self, _: &[u8], _: &mut [u8]) -> Result<Step, InflateError> {
                Ok(Step { used: 0, made: 0, ended: false })
            }
        }
        assert_eq!(Output::new(100).fill(&mut Stuck, b"1"), Err(InflateError::Corrupt { total_in: 7 }));
    }

    #[test]
    fn a_copied_payload_is_given_back_like_an_inflated_one() {
        let mut output = Output::new(1 << 20);
        for length in [0, 1, RESTING_BYTES, RESTING_BYTES + 1, 1 << 20] {
            let payload = vec![b'a'; length];
            output.copy(&payload);
            assert_eq!(output.payload(), payload);
            output.rest();
            assert_eq!(output.bytes.len(), RESTING_BYTES);
        }
    }
}
