//! From WebSocket messages to payloads, where the peer compresses.
//!
//! Input: the content of binary frames. Output: whole payloads, in a buffer that is used again for the next one.
//! Deliberately without any knowledge of what a payload contains.

use flate2::{Decompress, FlushDecompress, Status};

use crate::{Compression, InflateError};

/// What ends a payload in `zlib-stream`: the empty stored block of a Z_SYNC_FLUSH (GW-044).
const SYNC_FLUSH: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Size of the resting output buffer. With the 48 KB of the inflate state an idle connection holds 64 KB here. The
/// median payload is below 1 KB; the few above 16 KiB grow the buffer for the time of one payload.
const RESTING_BYTES: usize = 16 << 10;

/// Gateway JSON deflates about 5.3 : 1, so this multiple of the input rarely needs to grow again. What is not written
/// to stays untouched zero pages.
const EXPECTED_RATIO: usize = 8;

/// The inflate context of one connection: frames in, payloads out.
///
/// A new connection needs a new one, also when a session is resumed on it (GW-043).
///
/// # Bounds
/// One payload, and the compressed parts collected for it, never exceed the `limit` given at construction. At rest
/// it holds about 64 KB (inflate state 48, output buffer 16); it grows for a large payload and shrinks at the next push.
///
/// ```
/// use shardkeeper_transport::{Compression, Inflater};
///
/// let mut inflater = Inflater::new(Compression::ZlibStream, 1 << 20).expect("compressed");
/// let frame = b"\x78\x9c\xaa\x56\x4a\x2b\xcd\x53\xb2\x2a\x29\x2a\x4d\xad\x05\x00\x00\x00\xff\xff";
/// let (head, tail) = frame.split_at(7);
/// assert_eq!(inflater.push(head), Ok(None));
/// assert_eq!(inflater.push(tail), Ok(Some(&b"{\"fun\":true}"[..])));
/// ```
#[derive(Debug)]
pub struct Inflater {
    context: Context,
    failed: bool,
}

/// One variant per compression; each keeps `push` and `payload`.
#[derive(Debug)]
enum Context {
    Zlib(ZlibStream),
}

impl Inflater {
    /// A fresh context, or `None` for [`Compression::None`], which needs none.
    #[must_use]
    pub fn new(compression: Compression, limit: usize) -> Option<Self> {
        let context = match compression {
            Compression::None => return None,
            Compression::ZlibStream => Context::Zlib(ZlibStream::new(limit)),
        };
        Some(Self { context, failed: false })
    }

    /// Takes the content of the next frame; returns a payload when this frame completed one.
    ///
    /// # Errors
    /// Any error loses the context: each later push returns [`InflateError::ContextLost`] (GW-053).
    pub fn push(&mut self, frame: &[u8]) -> Result<Option<&[u8]>, InflateError> {
        Ok(if self.advance(frame)? { Some(self.payload()) } else { None })
    }

    /// [`push`](Self::push) without the borrow: whether [`payload`](Self::payload) is now a new whole payload.
    pub(crate) fn advance(&mut self, frame: &[u8]) -> Result<bool, InflateError> {
        if self.failed {
            return Err(InflateError::ContextLost);
        }
        let result = match &mut self.context {
            Context::Zlib(zlib) => zlib.push(frame),
        };
        self.failed = result.is_err();
        result
    }

    /// The payload completed last. Empty before the first, and after [`rest`](Self::rest) gave the buffer back.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.context {
            Context::Zlib(zlib) => &zlib.output[..zlib.filled],
        }
    }

    /// Gives back what a large payload took, once nobody reads that payload any more.
    pub(crate) fn rest(&mut self) {
        match &mut self.context {
            Context::Zlib(zlib) => zlib.rest(),
        }
    }
}

/// `zlib-stream` (GW-043 to GW-047).
#[derive(Debug)]
struct ZlibStream {
    inflate: Decompress,
    /// The parts of a payload that is not complete yet; empty in the usual case of one frame per payload.
    pending: Vec<u8>,
    /// Always initialised to its full length: `decompress_vec` would fill its spare capacity with zeros on each call.
    output: Vec<u8>,
    filled: usize,
    limit: usize,
    resting: usize,
}

impl ZlibStream {
    fn new(limit: usize) -> Self {
        // One byte more than allowed, so that a payload of exactly `limit` is told from one above it.
        let resting = RESTING_BYTES.min(limit.saturating_add(1));
        Self {
            inflate: Decompress::new(true),
            pending: Vec::new(),
            output: vec![0; resting],
            filled: 0,
            limit,
            resting,
        }
    }

    fn push(&mut self, frame: &[u8]) -> Result<bool, InflateError> {
        self.rest();
        // The suffix counts on the accumulated bytes: a frame of 1 to 3 bytes may end it (GW-045).
        if self.pending.is_empty() && frame.ends_with(&SYNC_FLUSH) {
            if frame.len() > self.limit {
                return Err(InflateError::TooLarge { limit: self.limit });
            }
            self.inflate(frame)?;
            return Ok(true);
        }
        if frame.len() > self.limit - self.pending.len() {
            return Err(InflateError::TooLarge { limit: self.limit });
        }
        self.pending.extend_from_slice(frame);
        if !self.pending.ends_with(&SYNC_FLUSH) {
            return Ok(false);
        }
        let mut input = std::mem::take(&mut self.pending);
        self.inflate(&input)?;
        if input.capacity() <= self.resting {
            input.clear();
            self.pending = input;
        }
        Ok(true)
    }

    /// Inflates until all input is used **and** the output was not filled to its end: a full buffer may hide more
    /// (GW-046).
    fn inflate(&mut self, mut input: &[u8]) -> Result<(), InflateError> {
        self.prepare(input.len());
        loop {
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, &mut self.output[self.filled..], FlushDecompress::Sync)
                .map_err(|_| InflateError::Corrupt { total_in: in_before })?;
            // Both deltas are bounded by the lengths of the slices just passed.
            let used = (self.inflate.total_in() - in_before) as usize;
            let made = (self.inflate.total_out() - out_before) as usize;
            input = &input[used..];
            self.filled += made;
            if self.filled > self.limit {
                return Err(InflateError::TooLarge { limit: self.limit });
            }
            if status == Status::StreamEnd {
                return Err(InflateError::StreamEnd { total_in: self.inflate.total_in() });
            }
            if self.filled == self.output.len() {
                self.grow();
            } else if input.is_empty() {
                // `BufError` is no error here: it only says that there was nothing left to do.
                return Ok(());
            } else if used == 0 && made == 0 {
                return Err(InflateError::Corrupt { total_in: in_before });
            }
        }
    }

    /// Makes room for what the input probably becomes. In proportion to bytes that did arrive, so no bomb gains by it.
    fn prepare(&mut self, input: usize) {
        self.filled = 0;
        let expected = input.saturating_mul(EXPECTED_RATIO).min(self.limit.saturating_add(1));
        if expected > self.output.len() {
            // A new one instead of `resize`: fresh zero pages instead of a copy and a fill.
            self.output = vec![0; expected];
        }
    }

    fn grow(&mut self) {
        // Not above `limit + 1`, and not reached twice: a buffer of that length cannot be full without an error.
        let target = self.output.len().saturating_mul(2).min(self.limit.saturating_add(1));
        self.output.resize(target, 0);
    }

    fn rest(&mut self) {
        if self.output.len() > self.resting {
            self.output = vec![0; self.resting];
            self.filled = 0;
        }
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

    #[test]
    fn the_buffer_is_bounded_and_returns_to_rest() {
        let mut context = Compress::new(flate2::Compression::new(6), true);
        let limit = 1 << 20;
        let mut zlib = ZlibStream::new(limit);
        assert_eq!(zlib.output.len(), RESTING_BYTES);
        assert!(zlib.push(&frame(&mut context, &vec![b'a'; limit])).unwrap());
        assert_eq!(zlib.filled, limit);
        assert_eq!(zlib.output.len(), limit + 1);
        zlib.rest();
        assert_eq!(zlib.output.len(), RESTING_BYTES);

        let large = frame(&mut context, &(0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let (head, tail) = large.split_at(large.len() / 2);
        assert!(!zlib.push(head).unwrap());
        assert!(zlib.push(tail).unwrap());
        assert_eq!(zlib.filled, 800_000);
        assert_eq!(zlib.pending.capacity(), 0);
        assert!(zlib.push(&frame(&mut context, b"{}")).unwrap());
        assert_eq!(zlib.output.len(), RESTING_BYTES);
        assert_eq!(&zlib.output[..zlib.filled], b"{}");
    }

    /// GW-054: deflate expands up to 1,032 times.
    #[test]
    fn a_bomb_takes_no_more_than_the_limit() {
        let mut context = Compress::new(flate2::Compression::new(9), true);
        let bomb = frame(&mut context, &vec![0; 50 << 20]);
        assert!(bomb.len() < 60_000);
        let mut zlib = ZlibStream::new(1 << 20);
        assert_eq!(zlib.push(&bomb), Err(InflateError::TooLarge { limit: 1 << 20 }));
        assert!(zlib.output.len() <= (1 << 20) + 1);
    }

    /// The resting buffer must not allow more than a small limit does.
    #[test]
    fn limits_below_the_resting_size_hold() {
        for limit in [0, 1, 2, 100] {
            let mut context = Compress::new(flate2::Compression::new(6), true);
            let mut zlib = ZlibStream::new(1 << 20);
            zlib.limit = limit;
            zlib.resting = limit + 1;
            zlib.output = vec![0; limit + 1];
            let fits = frame(&mut context, &vec![b'a'; limit]);
            // Not the compressed bound here: only the inflated one.
            zlib.inflate(&fits).unwrap();
            assert_eq!(zlib.filled, limit);
            let above = frame(&mut context, &vec![b'a'; limit + 1]);
            assert_eq!(zlib.inflate(&above), Err(InflateError::TooLarge { limit }));
        }
    }
}
