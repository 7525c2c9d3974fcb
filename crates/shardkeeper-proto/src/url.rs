//! The URL of a Gateway connection (GW-009 to GW-012).

use url::{Url, form_urlencoded};

use crate::Wire;

/// The Gateway version that this crate implements.
pub const GATEWAY_VERSION: u8 = 10;

/// Adds the query of a connection to `base` (GW-010, GW-012). A query that `base` already has is kept, except
/// for the parameters `v`, `encoding` and `compress` (GW-009).
pub fn gateway_url(base: &Url, wire: Wire) -> Url {
    let mut url = base.clone();
    let foreign: Vec<(String, String)> = base
        .query_pairs()
        .filter(|(key, _)| !matches!(key.as_ref(), "v" | "encoding" | "compress"))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    let ours = wire.query();
    url.query_pairs_mut().clear().extend_pairs(foreign).extend_pairs(form_urlencoded::parse(ours.as_bytes()));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_009_010_012_the_query_is_complete_whatever_the_base_has() {
        for (base, expected) in [
            ("wss://g.gg", "wss://g.gg/?v=10&encoding=json&compress=zlib-stream"),
            ("wss://g.gg/", "wss://g.gg/?v=10&encoding=json&compress=zlib-stream"),
            ("wss://g.gg/?v=8&x=1", "wss://g.gg/?x=1&v=10&encoding=json&compress=zlib-stream"),
            ("ws://127.0.0.1:80/resume", "ws://127.0.0.1/resume?v=10&encoding=json&compress=zlib-stream"),
        ] {
            let wire = Wire { compress: Some("zlib-stream"), ..Wire::default() };
            assert_eq!(gateway_url(&base.parse().unwrap(), wire).as_str(), expected);
        }
        let plain = gateway_url(&"wss://g.gg".parse().unwrap(), Wire::default());
        assert_eq!(plain.as_str(), "wss://g.gg/?v=10&encoding=json");
    }
}
