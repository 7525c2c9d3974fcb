//! How payloads go over one connection: encoding, compression, frames.

use std::borrow::Cow;

use flate2::{Compress, FlushCompress};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::etf::{self, Atoms};

/// From this size on payload compression compresses; *some* messages come so, others plain (GW-041).
const COMPRESSED_FROM_BYTES: usize = 1024;
/// `00 00 ff ff` ends each payload of `zlib-stream` (GW-044).
const ZLIB_SUFFIX: usize = 4;

/// What the URL asked for.
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
    /// Whether payload compression can be had (GW-034, GW-040).
    pub(crate) fn is_packable(self) -> bool {
        self.encoding == Encoding::Json && self.compression == Compression::None
    }
}

/// What a query says about a connection.
pub(crate) struct Query {
    pub(crate) mode: Mode,
    /// `v` and `encoding` were both given (GW-010).
    pub(crate) complete: bool,
}

impl Query {
    /// `None` when it asks for something that is not spoken here (GW-011).
    pub(crate) fn parse(query: &str) -> Option<Self> {
        // Without `v` it is version 6 (GW-011).
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

/// The payload cannot be written: a broken invariant of a library below.
#[derive(Debug)]
pub(crate) struct Unwritable;

/// Turns payloads into WebSocket messages, with the one context of its connection (GW-043, GW-048).
pub(crate) struct Encoder {
    encoding: Encoding,
    /// With `zstd-stream` each message is a frame that ends.
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

    /// Payloads, given as JSON text, in the encoding and not compressed.
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

    /// The messages of one payload, given as JSON text. `cuts` gets its length and that of its suffix, and says where to
    /// split it; `packed` asks for payload compression.
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

    /// Something that no client can read.
    pub(crate) fn garbage(&self) -> Message {
        match self.context {
            Context::None if self.encoding == Encoding::Json => Message::text("{\"op\":garbage"),
            _ => Message::binary(&b"\x07garbage\x00\x00\xff\xff"[..]),
        }
    }

    /// The beginning of a message that never ends.
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

/// One message, in as many frames as there are cuts (GW-015).
fn fragments(bytes: Vec<u8>, kind: Data, cuts: impl FnOnce(usize, usize) -> Vec<usize>) -> Vec<Message> {
    let cuts = cuts(bytes.len(), 0);
    if cuts.is_empty() && kind == Data::Text {
        // The input was text already.
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
        // At most the length of the slice.
        rest = &rest[(deflate.total_in() - before) as usize..];
        if out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(out.capacity());
    }
}

/// One payload, whole; without an end of the frame, as Discord does (GW-049), or with one.
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
