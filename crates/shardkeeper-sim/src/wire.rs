//! How payloads are written on a connection: encoding, compression and WebSocket frames.

use std::borrow::Cow;

use flate2::{Compress, FlushCompress};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::etf::{self, Atoms};

/// Payload compression compresses payloads of at least this size and leaves others plain (GW-041: clients get
/// both).
const COMPRESSED_FROM_BYTES: usize = 1024;
/// The length of `00 00 ff ff`, which ends each payload of `zlib-stream` (GW-044).
const ZLIB_SUFFIX: usize = 4;

/// The version, encoding and compression that the URL asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) version: u32,
    pub(crate) encoding: Encoding,
    pub(crate) compression: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Etf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Zlib,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Mode {
    /// Whether payload compression is possible: only with JSON and without transport compression (GW-034,
    /// GW-040).
    pub(crate) fn is_packable(self) -> bool {
        self.encoding == Encoding::Json && self.compression == Compression::None
    }
}

/// The query of a Gateway URL.
pub(crate) struct Query {
    pub(crate) mode: Mode,
    /// Whether `v` and `encoding` were both given (GW-010).
    pub(crate) complete: bool,
}

impl Query {
    /// Parses a query. `None` if it asks for an encoding or compression that does not exist (GW-011).
    pub(crate) fn parse(query: &str) -> Option<Self> {
        // GW-011: the default is version 6.
        let mut mode = Mode { version: 6, encoding: Encoding::Json, compression: Compression::None };
        let (mut version, mut encoding) = (false, false);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (key, value) {
                ("v", number) => {
                    mode.version = number.parse().ok()?;
                    version = true;
                }
                ("encoding", "json") => encoding = true,
                ("encoding", "etf") => {
                    mode.encoding = Encoding::Etf;
                    encoding = true;
                }
                ("encoding", _) => return None,
                ("compress", "zlib-stream") => mode.compression = Compression::Zlib,
                #[cfg(feature = "zstd")]
                ("compress", "zstd-stream") => mode.compression = Compression::Zstd,
                ("compress", _) => return None,
                _ => {}
            }
        }
        Some(Self { mode, complete: version && encoding })
    }
}

/// The payload cannot be written. This does not happen unless a library fails.
#[derive(Debug)]
pub(crate) struct Unwritable;

/// Turns payloads into WebSocket messages. All payloads of a connection share one compression context
/// (GW-043, GW-048).
pub(crate) struct Encoder {
    encoding: Encoding,
    /// Whether each message with `zstd-stream` is a complete zstd frame.
    #[cfg_attr(not(feature = "zstd"), expect(dead_code, reason = "only zstd has frames"))]
    frame_per_message: bool,
    atoms: Atoms,
    context: Context,
}

enum Context {
    None,
    Zlib(Compress),
    #[cfg(feature = "zstd")]
    Zstd(zstd_safe::CCtx<'static>),
}

impl Encoder {
    pub(crate) fn new(mode: Mode, atoms: Atoms, frame_per_message: bool) -> Self {
        let context = match mode.compression {
            Compression::None => Context::None,
            Compression::Zlib => Context::Zlib(Compress::new(flate2::Compression::fast(), true)),
            #[cfg(feature = "zstd")]
            Compression::Zstd => Context::Zstd(zstd_safe::CCtx::create()),
        };
        Self { encoding: mode.encoding, atoms, frame_per_message, context }
    }

    /// Encodes payloads, given as JSON text, without compression.
    pub(crate) fn encoded<'a>(&self, payloads: &'a [u8]) -> Result<Cow<'a, [u8]>, Unwritable> {
        match self.encoding {
            Encoding::Json => Ok(Cow::Borrowed(payloads)),
            Encoding::Etf => {
                let payloads = serde_json::Deserializer::from_slice(payloads).into_iter();
                let terms =
                    payloads.map(|payload| Ok(etf::encode(&payload.map_err(|_| Unwritable)?, self.atoms)));
                Ok(Cow::Owned(terms.collect::<Result<Vec<_>, _>>()?.concat()))
            }
        }
    }

    /// The messages of one payload, given as JSON text. `packed` enables payload compression. `cuts` gets the
    /// lengths of the encoded payload and of its suffix, and returns where to split it.
    pub(crate) fn messages(
        &mut self,
        payload: &[u8],
        packed: bool,
        cuts: impl FnOnce(usize, usize) -> Vec<usize>,
    ) -> Result<Vec<Message>, Unwritable> {
        let bytes = &*self.encoded(payload)?;
        Ok(match &mut self.context {
            Context::Zlib(deflate) => {
                let out = deflated(deflate, bytes, FlushCompress::Sync)?;
                let cuts = cuts(out.len(), ZLIB_SUFFIX);
                parts(&out, &cuts).map(|part| Message::binary(part.to_vec())).collect()
            }
            #[cfg(feature = "zstd")]
            Context::Zstd(context) => {
                fragments(zstd_flushed(context, bytes, self.frame_per_message)?, Data::Binary, cuts)
            }
            Context::None if self.encoding == Encoding::Etf => fragments(bytes.to_vec(), Data::Binary, cuts),
            Context::None if packed && bytes.len() >= COMPRESSED_FROM_BYTES => {
                let mut deflate = Compress::new(flate2::Compression::fast(), true);
                fragments(deflated(&mut deflate, bytes, FlushCompress::Finish)?, Data::Binary, cuts)
            }
            Context::None => fragments(bytes.to_vec(), Data::Text, cuts),
        })
    }

    /// A message that no client can decode.
    pub(crate) fn garbage(&self) -> Message {
        match self.context {
            Context::None if self.encoding == Encoding::Json => Message::text("{\"op\":garbage"),
            _ => Message::binary(&b"\x07garbage\x00\x00\xff\xff"[..]),
        }
    }

    /// The first half of a message.
    pub(crate) fn truncated(&mut self, payload: &[u8]) -> Result<Message, Unwritable> {
        match &mut self.context {
            Context::Zlib(deflate) => {
                let out = deflated(deflate, payload, FlushCompress::Sync)?;
                Ok(Message::binary(out[..out.len() / 2].to_vec()))
            }
            _ => Ok(fragment(&payload[..payload.len() / 2], Data::Binary, false)),
        }
    }
}

/// One message, split into frames at the cuts (GW-015).
fn fragments(bytes: Vec<u8>, kind: Data, cuts: impl FnOnce(usize, usize) -> Vec<usize>) -> Vec<Message> {
    let cuts = cuts(bytes.len(), 0);
    if cuts.is_empty() && kind == Data::Text {
        // The payload is JSON text, so it is UTF-8.
        return vec![Message::text(String::from_utf8(bytes).unwrap_or_default())];
    }
    if cuts.is_empty() {
        return vec![Message::binary(bytes)];
    }
    let last = cuts.len();
    let frame = |(number, part)| {
        let kind = if number == 0 { kind } else { Data::Continue };
        fragment(part, kind, number == last)
    };
    parts(&bytes, &cuts).enumerate().map(frame).collect()
}

fn fragment(part: &[u8], kind: Data, last: bool) -> Message {
    Message::Frame(Frame::message(part.to_vec(), OpCode::Data(kind), last))
}

/// The parts of these bytes between the cuts.
fn parts<'a>(bytes: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut start = 0;
    cuts.iter().copied().chain([bytes.len()]).map(move |end| &bytes[std::mem::replace(&mut start, end)..end])
}

fn deflated(deflate: &mut Compress, bytes: &[u8], flush: FlushCompress) -> Result<Vec<u8>, Unwritable> {
    let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
    let mut rest = bytes;
    loop {
        let before = deflate.total_in();
        deflate.compress_vec(rest, &mut out, flush).map_err(|_| Unwritable)?;
        // No more than the length of `rest` is consumed.
        rest = &rest[(deflate.total_in() - before) as usize..];
        if out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(out.capacity());
    }
}

/// Compresses one payload. The zstd frame continues with the next payload, as at Discord (GW-049), unless
/// `end` is set.
#[cfg(feature = "zstd")]
fn zstd_flushed(
    context: &mut zstd_safe::CCtx<'static>,
    bytes: &[u8],
    end: bool,
) -> Result<Vec<u8>, Unwritable> {
    use zstd_safe::{InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

    let directive = if end { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_flush };

    let mut out = Vec::new();
    let mut input = InBuffer::around(bytes);
    let mut chunk = vec![0; bytes.len() / 2 + 1024];
    loop {
        let mut output = OutBuffer::around(&mut chunk[..]);
        let left = context.compress_stream2(&mut output, &mut input, directive).map_err(|_| Unwritable)?;
        out.extend_from_slice(output.as_slice());
        if left == 0 && input.pos() == bytes.len() {
            return Ok(out);
        }
    }
}
