//! From compressed WebSocket messages to payloads.
//!
//! Input: the content of binary messages. Output: whole payloads, in a reused buffer. This module does not
//! know what a payload contains.
//!
//! Each compression is one file, which decides where a payload ends and owns the decompressor. The bounded
//! output buffer and the loop that fills it are shared, in `output`.

mod output;
mod payload;
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

use std::fmt;

use output::Output;
use payload::Payload;
use zlib::ZlibStream;
#[cfg(feature = "zstd")]
use zstd::ZstdStream;

use crate::{Compression, InflateError};

/// The inflate context of one connection: messages in, payloads out.
///
/// A new connection needs a new context, also when a session is resumed on it (GW-043, GW-048).
///
/// # Bounds
/// A payload, and the compressed parts collected for it, never exceed the `limit` given at construction.
/// The output buffer rests at 16 KB; it grows for a large payload and shrinks at the next push. For the
/// decompressor's own memory see [`Compression`].
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
pub struct Inflater {
    context: Context,
    output: Output,
    failed: bool,
}

/// The context of each compression.
enum Context {
    Zlib(ZlibStream),
    #[cfg(feature = "zstd")]
    Zstd(ZstdStream),
    Payload(Payload),
}

impl Inflater {
    /// Creates a context, or returns `None` for [`Compression::None`], which needs none. `limit` is in bytes.
    ///
    /// # Panics
    /// With `zstd-stream`, if the C library cannot allocate a new context (96 KB).
    #[must_use]
    pub fn new(compression: Compression, limit: usize) -> Option<Self> {
        let context = match compression {
            Compression::None => return None,
            Compression::ZlibStream => Context::Zlib(ZlibStream::new()),
            #[cfg(feature = "zstd")]
            Compression::ZstdStream => Context::Zstd(ZstdStream::new()),
            Compression::Payload => Context::Payload(Payload::new()),
        };
        Some(Self { context, output: Output::new(limit), failed: false })
    }

    /// Inflates the content of the next binary message and returns the payload that it completed. Returns
    /// `None` only with `zlib-stream`, where a payload may span messages.
    ///
    /// # Errors
    /// Any error is final for the connection (GW-053): each later push returns [`InflateError::ContextLost`].
    pub fn push(&mut self, message: &[u8]) -> Result<Option<&[u8]>, InflateError> {
        Ok(if self.advance(message)? { Some(self.payload()) } else { None })
    }

    /// Inflates like [`push`](Self::push), without the borrow. Returns whether [`payload`](Self::payload) is
    /// a new whole payload.
    pub(crate) fn advance(&mut self, message: &[u8]) -> Result<bool, InflateError> {
        if self.failed {
            return Err(InflateError::ContextLost);
        }
        self.output.rest();
        let result = if message.len() > self.output.limit() {
            Err(self.output.too_large())
        } else {
            match &mut self.context {
                Context::Zlib(zlib) => zlib.push(message, &mut self.output),
                #[cfg(feature = "zstd")]
                Context::Zstd(zstd) => zstd.push(message, &mut self.output).map(|()| true),
                Context::Payload(payload) => payload.push(message, &mut self.output).map(|()| true),
            }
        };
        self.failed = result.is_err();
        result
    }

    /// The payload completed last. Empty before the first, and after [`rest`](Self::rest) released the
    /// buffer.
    pub(crate) fn payload(&self) -> &[u8] {
        self.output.payload()
    }

    /// Releases the memory of a large payload, once nothing reads that payload any more.
    pub(crate) fn rest(&mut self) {
        self.output.rest();
    }

    /// Whether all messages belong to one compressed stream, rather than each being compressed by itself.
    pub(crate) fn is_stream(&self) -> bool {
        !matches!(self.context, Context::Payload(_))
    }

    /// Whether this binary message shows that the peer does not compress: no stream has begun, and the first
    /// byte is that of JSON or ETF, which no compressed stream begins with.
    pub(crate) fn is_unused_by(&self, message: &[u8]) -> bool {
        let begun = match &self.context {
            Context::Zlib(zlib) => zlib.has_begun(),
            #[cfg(feature = "zstd")]
            Context::Zstd(zstd) => zstd.has_begun(),
            Context::Payload(_) => true,
        };
        !begun && matches!(message.first(), Some(b'{' | 131))
    }
}

/// The buffers are omitted, because they hold payloads.
impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compression = match &self.context {
            Context::Zlib(_) => Compression::ZlibStream,
            #[cfg(feature = "zstd")]
            Context::Zstd(_) => Compression::ZstdStream,
            Context::Payload(_) => Compression::Payload,
        };
        f.debug_struct("Inflater")
            .field("compression", &compression)
            .field("limit", &self.output.limit())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
