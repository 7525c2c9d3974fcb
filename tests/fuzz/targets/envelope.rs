//! The envelope splitter: what it finds is what a JSON parser finds, and nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shardkeeper_proto::Envelope;

fuzz_target!(|bytes: &[u8]| {
    // Whatever is behind a payload is split in turn, until nothing is left or it is none.
    let mut rest = bytes;
    while let Ok((_, behind)) = Envelope::split_first(rest) {
        assert!(behind.len() < rest.len());
        rest = behind;
    }
    let Ok(envelope) = Envelope::split(bytes) else { return };
    // The quick way does not look into `d`, so that only whole documents can be compared.
    let Ok(Value::Object(parsed)) = serde_json::from_slice::<Value>(bytes) else { return };
    // A key that comes twice is read once by each, and not the same one.
    let twice = ["\"op\"", "\"s\"", "\"t\"", "\"d\""].iter().any(|key| count(bytes, key.as_bytes()) > 1);
    if twice || bytes.contains(&b'\\') {
        return;
    }
    // Numbers may be written in other ways, which the splitter takes too.
    assert!(parsed["op"].as_u64().is_none_or(|op| op == envelope.op));
    let s = parsed.get("s").and_then(Value::as_u64);
    assert!(s.is_none() || s == envelope.sequence);
    assert_eq!(envelope.event.as_deref(), parsed.get("t").and_then(Value::as_str));
    let data: Value = serde_json::from_slice(envelope.data).expect("the data of a document is a document");
    assert_eq!(&data, parsed.get("d").unwrap_or(&Value::Null));
});

fn count(bytes: &[u8], key: &[u8]) -> usize {
    bytes.windows(key.len()).filter(|window| *window == key).count()
}
