//! The choice of a compression.

/// How the peer compresses what it sends.
///
/// Only the direction from the peer is ever compressed, and the kinds exclude each other (GW-040). The streams are
/// asked for in the connection URL, [`Payload`](Self::Payload) in the Identify payload.
///
/// Memory is given per connection, without the 16 KB of the output buffer that each of them but [`None`](Self::None)
/// has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Each WebSocket message is one payload, as it is. About 5 times the bytes of [`ZlibStream`](Self::ZlibStream),
    /// and neither the inflater's memory nor its time.
    #[default]
    None,
    /// One zlib stream per connection, flushed at the end of each payload (GW-043, GW-044). Costs 48 KB of memory per
    /// connection and 2 to 3 µs per small payload. The choice for many shards.
    ZlibStream,
    /// One zstd stream per connection; each WebSocket message is one payload (GW-048 to GW-050). Needs the cargo
    /// feature `zstd`. Takes a third to a half of the time of [`ZlibStream`](Self::ZlibStream), 0.9 to 1.6 µs per small
    /// payload, and 10 to 20 % fewer bytes.
    ///
    /// Costs 0.1 MB of memory per connection, and from the first payload on 0.5 MB and the window that the peer chose:
    /// 2.6 MB for a window of 2 MiB, which is the default of zstd's levels 3 to 8. The window becomes resident as the
    /// traffic fills it. Windows above 8 MiB are refused, so 8.9 MB is the most. The choice for a few busy shards.
    #[cfg(feature = "zstd")]
    ZstdStream,
    /// Some messages, the binary ones, are a zlib stream of their own; the others are payloads as they are (GW-041,
    /// GW-042). A peer sends so only after an Identify with `compress: true`. Small payloads compress badly without
    /// a shared context, and the memory is that of [`ZlibStream`](Self::ZlibStream): for peers that know nothing else.
    Payload,
}

impl Compression {
    /// The value of the URL's `compress` parameter; `None` means that the parameter is left out (GW-010).
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
