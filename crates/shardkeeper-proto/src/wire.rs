//! How payloads are encoded and compressed, as stated in the connection URL and in Identify.

use crate::url::GATEWAY_VERSION;

/// The encoding of payloads, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// JSON text.
    #[default]
    Json,
    /// Erlang's External Term Format; see [`etf`](crate::etf). Needs the cargo feature `etf`.
    #[cfg(feature = "etf")]
    Etf,
}

impl Encoding {
    /// The value of the URL's `encoding` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            #[cfg(feature = "etf")]
            Self::Etf => "etf",
        }
    }
}

/// How the payloads of a shard are encoded and compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "drivers construct it, and decide about every field")]
pub struct Wire {
    /// The encoding of payloads in both directions.
    pub encoding: Encoding,
    /// The value of the URL's `compress` parameter; `None` without transport compression.
    pub compress: Option<&'static str>,
    /// Whether Identify requests payload compression (GW-041). Applies only to JSON without transport
    /// compression (GW-034, GW-040: these exclude it).
    pub payload_compression: bool,
}

impl Wire {
    /// The query of each connection. A session must be resumed with the query it was started with (GW-012).
    pub fn query(self) -> String {
        let query = format!("v={GATEWAY_VERSION}&encoding={}", self.encoding.as_str());
        match self.compress {
            Some(compress) => format!("{query}&compress={compress}"),
            None => query,
        }
    }
}
