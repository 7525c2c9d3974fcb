//! How payloads travel: what the URL of a connection says about it, and Identify.

use crate::url::GATEWAY_VERSION;

/// The form of payloads, in both directions.
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

/// How the payloads of a shard travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "drivers construct it, and decide about every field")]
pub struct Wire {
    /// Their form.
    pub encoding: Encoding,
    /// The value of the URL's `compress` parameter, if transport compression is on.
    pub compress: Option<&'static str>,
    /// Whether Identify asks for payload compression (GW-041). For JSON without transport compression alone (GW-034,
    /// GW-040).
    pub payload_compression: bool,
}

impl Wire {
    /// The query of each connection. A session is resumed with the query that it was made with (GW-012).
    pub fn query(self) -> String {
        let query = format!("v={GATEWAY_VERSION}&encoding={}", self.encoding.as_str());
        match self.compress {
            Some(compress) => format!("{query}&compress={compress}"),
            None => query,
        }
    }
}
