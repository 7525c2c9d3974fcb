//! The supported compressions.

/// How the peer compresses what it sends.
///
/// Only the direction from the peer is ever compressed, and the kinds exclude each other (GW-040). The
/// streams are requested in the connection URL, [`Payload`](Self::Payload) in the Identify payload.
///
/// The memory figures are per connection. Every kind except [`None`](Self::None) also has an output buffer of
/// 16 KB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Each WebSocket message is one uncompressed payload. Takes about 5 times the bytes of
    /// [`ZlibStream`](Self::ZlibStream), but no memory or time for inflating.
    #[default]
    None,
    /// A single zlib stream per connection, flushed at the end of each payload (GW-043, GW-044). Takes 48 KB
    /// of memory per connection and 2 to 3 µs per small payload. Recommended for many shards.
    ZlibStream,
    /// A single zstd stream per connection; each WebSocket message is one payload (GW-048 to GW-050). Needs
    /// the cargo feature `zstd`. Takes a third to a half of the time of [`ZlibStream`](Self::ZlibStream), 0.9
    /// to 1.6 µs per small payload, and 10 to 20 % fewer bytes. Recommended for a few busy shards.
    ///
    /// Takes 0.1 MB of memory per connection, and from the first payload on another 0.5 MB plus the window
    /// that the peer chose: 2.6 MB for a window of 2 MiB, the default of zstd's levels 3 to 8. The window
    /// becomes resident as traffic fills it. Windows above 8 MiB are rejected, so 8.9 MB is the maximum.
    #[cfg(feature = "zstd")]
    ZstdStream,
    /// Each binary message is either a zlib stream of its own or an uncompressed payload; text is never
    /// compressed (GW-041, GW-042). The peer compresses this way only after an Identify with `compress:
    /// true`. Small payloads compress badly without a shared context, and the memory is that of
    /// [`ZlibStream`](Self::ZlibStream), so use this only for peers that support nothing else.
    Payload,
}

impl Compression {
    /// The value of the URL's `compress` parameter; `None` means that the parameter is omitted (GW-010).
    #[must_use]
    pub const fn query_value(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Payload => None,
            Self::ZlibStream => Some("zlib-stream"),
            #[cfg(feature = "zstd")]
            Self::ZstdStream => Some("zstd-stream"),
        }
    }
}
