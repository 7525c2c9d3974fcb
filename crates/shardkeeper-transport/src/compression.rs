//! The name of a transport compression.

/// How the peer compresses what it sends, as asked for in the connection URL.
///
/// Only the direction from the peer is ever compressed (protocol rule GW-040 ff.). Discord's third mode, payload
/// compression inside the Identify payload, is not a matter of the transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Each WebSocket message is one payload, as it is. About 5 times the bytes of [`ZlibStream`](Self::ZlibStream),
    /// and neither the inflater's memory nor its time.
    #[default]
    None,
    /// One zlib stream per connection, flushed at the end of each payload (GW-043, GW-044). Costs about 64 KB of
    /// memory per connection and 2 to 3 µs per small payload.
    ZlibStream,
}

impl Compression {
    /// The value of the URL's `compress` parameter; `None` means that the parameter is left out (GW-010).
    #[must_use]
    pub const fn query_value(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::ZlibStream => Some("zlib-stream"),
        }
    }
}
