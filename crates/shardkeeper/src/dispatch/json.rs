//! Parsing of JSON text into the types of subscribers.
//!
//! Input: the data of a dispatch. Output: a value, or an error whose text contains nothing of the data.

use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde::Deserialize;

use crate::chain::readable;
#[cfg(feature = "simd-json")]
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Longest part of an unknown event name that is shown, in characters. Such a name comes from the peer.
const MAX_SHOWN_NAME: usize = 64;

/// Parses the data with serde_json.
pub(crate) fn parse<'de, T: Deserialize<'de>>(data: &'de [u8]) -> Result<T, JsonError> {
    serde_json::from_slice(data).map_err(|source| JsonError {
        event: None,
        bytes: data.len(),
        target: type_name::<T>(),
        source,
    })
}

/// Parses the data with the parser that is fastest for a type that takes most of it. Errors always come from
/// serde_json.
#[cfg(feature = "simd-json")]
pub(super) fn whole<T: DeserializeOwned>(data: &[u8]) -> Result<T, JsonError> {
    if data.len() >= simd::PAYS_FROM
        && let Some(value) = simd::read(data)
    {
        return Ok(value);
    }
    parse(data)
}

/// Error of parsing JSON data.
///
/// The text names the event, the target type, the kind of mistake and its position, but nothing of the
/// content. serde_json's own text can quote the content, and so can the keys on the path to the mistake: some
/// of Discord's maps have ids or user text as keys.
pub struct JsonError {
    event: Option<Cow<'static, str>>,
    bytes: usize,
    target: &'static str,
    source: serde_json::Error,
}

impl JsonError {
    /// The same error, with the name of the event.
    pub(crate) fn of(self, event: Cow<'static, str>) -> Self {
        Self { event: Some(event), ..self }
    }

    /// Returns serde_json's error. Its text can contain parts of the event, such as a user's message.
    pub fn into_inner(self) -> serde_json::Error {
        self.source
    }

    /// Name of the event on the wire, if the data is that of an event.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// Size of the data, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Kind of mistake.
    pub fn category(&self) -> Category {
        self.source.classify()
    }

    /// Line of the mistake in the data, from 1. Discord sends each event as one line.
    pub fn line(&self) -> usize {
        self.source.line()
    }

    /// Column in that line, in bytes, from 1. Parsing stopped there, so the mistake is before it.
    pub fn column(&self) -> usize {
        self.source.column()
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.category() {
            Category::Data => "a value is missing or has the wrong type",
            Category::Syntax => "it is not valid JSON",
            Category::Eof => "it ends too early",
            Category::Io => "it cannot be read",
        };
        if let Some(event) = &self.event {
            let shown: String = event.chars().take(MAX_SHOWN_NAME).collect();
            write!(
                f,
                "{} of {} bytes cannot be parsed as {}: ",
                shown.escape_debug(),
                self.bytes,
                self.target
            )?;
        }
        write!(f, "{what}, before line {} column {}", self.line(), self.column())
    }
}

impl Error for JsonError {}

#[cfg(feature = "simd-json")]
mod simd {
    use std::cell::Cell;

    use serde::de::DeserializeOwned;
    use simd_json::Buffers;

    /// Smallest event for which simd-json is used, in bytes. From this size on it took at most 0.9 of
    /// serde_json's time for every type that took most of its data (`benches/parse.rs`). Below, the
    /// difference is about a microsecond.
    pub(super) const PAYS_FROM: usize = 4096;
    /// Largest event, in bytes, whose buffers a thread keeps for the next one; the buffers take about four
    /// times as much memory. Without them an event of 70 KB can take twice as long; from 700 KB on there was
    /// no difference.
    const KEPT: usize = 512 * 1024;
    /// serde_json's limit of nesting, so that both parsers accept the same types.
    const MAX_DEPTH: usize = 127;

    struct Scratch {
        /// Copy of the data, because simd-json writes into its input and a dispatch's data is shared.
        copy: Vec<u8>,
        buffers: Buffers,
    }

    thread_local! {
        /// Emptied while in use, because a `Deserialize` may parse another dispatch.
        static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
    }

    /// Parses the data. `None` means that serde_json has to decide: the data is not a `T`, or `T` needs
    /// something that simd-json does not have, such as `RawValue`, maps with numeric keys, or numbers beyond
    /// 64 bits.
    pub(super) fn read<T: DeserializeOwned>(data: &[u8]) -> Option<T> {
        let mut scratch = SCRATCH
            .take()
            .unwrap_or_else(|| Scratch { copy: Vec::new(), buffers: Buffers::with_max_depth(0, MAX_DEPTH) });
        scratch.copy.clear();
        scratch.copy.extend_from_slice(data);
        let value = simd_json::serde::from_slice_with_buffers(&mut scratch.copy, &mut scratch.buffers).ok();
        if scratch.copy.capacity() <= KEPT {
            SCRATCH.set(Some(scratch));
        }
        value
    }
}

#[cfg(test)]
mod error_tests {
    use crate::dispatch::Dispatch;

    #[derive(Debug, serde::Deserialize)]
    struct Typing {
        #[expect(dead_code, reason = "it is never made")]
        user_id: u64,
    }

    #[test]
    fn an_error_names_the_event_the_type_and_the_place_and_nothing_of_the_content() {
        let long = format!("NEW_{}", "\n".repeat(100));
        for (name, shown) in [("TYPING_START", "TYPING_START"), (&long, &format!("NEW_{}", r"\n".repeat(60)))]
        {
            let dispatch = Dispatch::sample(name, br#"{"user_id":"secret"}"#);
            let error = dispatch.parse::<Typing>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "{shown} of 20 bytes cannot be parsed as \
                     shardkeeper::dispatch::json::error_tests::Typing: \
                     a value is missing or has the wrong type, before line 1 column 19"
                )
            );
            assert_eq!(format!("{error:?}"), error.to_string());
            assert_eq!((error.event(), error.bytes()), (Some(name), 20));
            assert!(error.into_inner().to_string().contains("secret"));
        }
    }
}

#[cfg(all(test, feature = "simd-json"))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    /// Generates valid JSON text with every feature that JSON has.
    fn json() -> impl Strategy<Value = String> {
        let string = r#""([ -!#-\[\]-~äß🦆]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,12}""#;
        let number = r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?";
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            number.prop_map(String::from),
            string.prop_map(String::from),
        ];
        leaf.prop_recursive(4, 64, 6, move |inner| {
            let field = (string, inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|values| format!("[{}]", values.join(","))),
                prop::collection::vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(", "))),
            ]
        })
    }

    /// Equal except for the last bits of a float: serde_json does not promise those without its feature
    /// `float_roundtrip`.
    fn alike(left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::Array(left), Value::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| alike(left, right))
            }
            (Value::Object(left), Value::Object(right)) => {
                left.len() == right.len()
                    && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && alike(left.1, right.1))
            }
            (Value::Number(left), Value::Number(right)) if left.is_f64() || right.is_f64() => {
                let both = left.as_f64().zip(right.as_f64());
                both.is_some_and(|(left, right)| (left - right).abs() <= left.abs() * 1e-15)
            }
            _ => left == right,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_simd_json_takes_serde_json_takes_likewise(
            text in json(), at in any::<prop::sample::Index>(), put in any::<Option<u8>>(),
        ) {
            let mut text = text.into_bytes();
            if let Some(put) = put {
                let at = at.index(text.len());
                text[at] = put;
            }
            let Some(value) = simd::read::<Value>(&text) else { return Ok(()) };
            let expected: Value = serde_json::from_slice(&text).unwrap();
            prop_assert!(alike(&value, &expected), "{value} instead of {expected}");
        }
    }

    #[test]
    fn numbers_fit_the_same_types() {
        fn agree<T: DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) {
            if let Some(value) = simd::read::<T>(text.as_bytes()) {
                assert_eq!(value, serde_json::from_str::<T>(text).unwrap(), "{text}");
            }
        }
        for text in [
            "0",
            "1",
            "-1",
            "127",
            "128",
            "255",
            "256",
            "-128",
            "-129",
            "65536",
            "4294967296",
            "1.0",
            "1e2",
            "-1e400",
            "1e400",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            "0.5",
            "-0.5",
            "\"1\"",
            "true",
            "null",
        ] {
            agree::<u8>(text);
            agree::<i8>(text);
            agree::<u32>(text);
            agree::<i32>(text);
            agree::<u64>(text);
            agree::<i64>(text);
            agree::<f32>(text);
            agree::<f64>(text);
            agree::<Option<bool>>(text);
        }
    }

    fn large(rest: &str) -> Vec<u8> {
        format!(r#"{{"padding":"{}",{rest}}}"#, "x".repeat(simd::PAYS_FROM)).into_bytes()
    }

    #[test]
    fn types_beyond_simd_json_are_read_all_the_same() {
        #[derive(Deserialize)]
        struct Odd {
            raw: Box<RawValue>,
            by_number: BTreeMap<u64, bool>,
            huge: f64,
        }
        let data = large(r#""raw":{"a": [1 ]},"by_number":{"7":true},"huge":123456789012345678901234567890"#);
        let odd: Odd = whole(&data).unwrap();
        assert_eq!(odd.raw.get(), r#"{"a": [1 ]}"#);
        assert_eq!(
            (odd.by_number, odd.huge),
            (BTreeMap::from([(7, true)]), 123_456_789_012_345_678_901_234_567_890.0)
        );
    }

    #[test]
    fn a_value_that_parses_another_one_inside_is_read() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(from = "Value")]
        struct Nested(usize);
        impl From<Value> for Nested {
            fn from(_: Value) -> Self {
                Self(simd::read::<Value>(&large(r#""a":1"#)).unwrap().as_object().unwrap().len())
            }
        }
        assert_eq!(whole::<Nested>(&large(r#""b":2"#)).unwrap(), Nested(2));
    }

    #[test]
    fn errors_are_those_of_serde_json() {
        #[derive(Debug, Deserialize)]
        struct Number {
            #[expect(dead_code, reason = "it is never made")]
            a: u8,
        }
        for data in [large(r#""a":"text""#), large(r#""a":"#), large(r#""b":1"#)] {
            let expected = serde_json::from_slice::<Number>(&data).unwrap_err().to_string();
            assert_eq!(whole::<Number>(&data).unwrap_err().into_inner().to_string(), expected);
        }
    }
}

readable!(JsonError);
