//! The outer form of a payload: finds `op`, `s`, `t` and the bytes of `d`, without parsing `d`.
//!
//! Input: one whole message from the transport. Output: an [`Envelope`] for the state machine. There are two
//! ways: a scan for Discord's own order of keys (everything before `d`, no white space, no escapes), which
//! searches `d` only for a second payload; and a JSON parser for everything else.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::{EventName, Opcode};

/// A payload split into its fields. Borrows from the message it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope<'a> {
    /// The opcode's number; see [`opcode`](Self::opcode).
    pub op: u64,
    /// The sequence number, in dispatches only. `None` also when `s` is not a whole number.
    pub sequence: Option<u64>,
    /// The event's name, in dispatches only.
    pub event: Option<Cow<'a, str>>,
    /// The JSON text of `d`; `null` when it was absent (GW-017).
    ///
    /// The scan takes everything between `"d":` and the closing brace, since Discord writes `d` last. If an
    /// unknown key followed, a value of another kind than `d` would be recognised and parsed properly; a
    /// value of the same kind would cause trailing characters in the parser of `d`. A second payload in the
    /// same message never becomes part of the first one's data.
    pub data: &'a [u8],
}

/// A payload that is not a JSON object, or has no `op`.
#[derive(Debug, thiserror::Error)]
#[error("a payload of {bytes} bytes is malformed")]
pub struct MalformedPayload {
    /// The size of the payload, in bytes.
    pub bytes: usize,
    pub(crate) source: serde_json::Error,
}

impl<'a> Envelope<'a> {
    /// The envelope of a dispatch whose fields are known.
    pub fn dispatch(event: &'a str, sequence: u64, data: &'a [u8]) -> Self {
        Self { op: 0, sequence: Some(sequence), event: Some(Cow::Borrowed(event)), data }
    }

    /// Splits a message with exactly one payload.
    ///
    /// # Errors
    ///
    /// The errors of [`split_first`](Self::split_first), and when the message holds more than one payload.
    pub fn split(payload: &'a [u8]) -> Result<Self, MalformedPayload> {
        match Self::split_first(payload)? {
            (envelope, []) => Ok(envelope),
            _ => {
                Err(malformed(payload, serde_json::Error::custom("another payload stands behind the first")))
            }
        }
    }

    /// Splits the first payload of a message, and returns the bytes after it. Discord sends one payload per
    /// message; a proxy in between may put several into one.
    ///
    /// # Errors
    ///
    /// When the message does not begin with a JSON object that has a number as its `op`, or when `t` is not a
    /// string.
    pub fn split_first(message: &'a [u8]) -> Result<(Self, &'a [u8]), MalformedPayload> {
        match scan(message) {
            Some(envelope) => Ok((envelope, &[])),
            None => parse(message),
        }
    }

    /// The opcode, if bots receive or send it.
    pub fn opcode(&self) -> Option<Opcode> {
        Opcode::from_number(self.op)
    }

    /// The event, if its name is in the table.
    pub fn event_name(&self) -> Option<EventName> {
        EventName::from_bytes(self.event.as_deref()?.as_bytes())
    }
}

impl Envelope<'_> {
    /// The guild that a dispatch belongs to: its `guild_id`, or the `id` of a guild event (GW-261). Nested
    /// keys are not read (GW-262). `None` for an event without a guild, and for data that cannot be parsed.
    /// Takes one pass over the data: about a nanosecond per byte.
    pub fn guild_id(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Data {
            #[serde(default)]
            id: Option<Id>,
            #[serde(default)]
            guild_id: Option<Id>,
        }
        let data: Data = serde_json::from_slice(self.data).ok()?;
        let id = match self.event_name()? {
            EventName::GuildCreate | EventName::GuildUpdate | EventName::GuildDelete => data.id,
            _ => data.guild_id,
        };
        match id? {
            Id::Text(text) => text.parse().ok(),
            Id::Number(number) => Some(number),
        }
    }
}

/// An id: a string, or a number if it is not a snowflake (GW-025).
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

/// A key that every payload has and that event data rarely has, used to find a second payload in a message.
/// Within a string its quotes are escaped, so a chat message about `"op"` is not found.
static OP_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""op""#));

/// Splits a payload in the usual order: `op`, `s` and `t` in any order, then `d`, then the end.
pub(crate) fn scan(payload: &[u8]) -> Option<Envelope<'_>> {
    let (mut op, mut sequence, mut event) = (None, None, None);
    let mut rest = payload.strip_prefix(b"{")?;
    loop {
        match rest {
            [b'"', b'd', b'"', b':', tail @ ..] => {
                let data = tail.strip_suffix(b"}")?;
                (ends_as_it_begins(data) && is_alone(data)).then_some(())?;
                // All three must precede `d`; otherwise one of them may follow it.
                return Some(Envelope { op: op?, sequence: sequence?, event: event?, data });
            }
            [b'"', b's', b'"', b':', tail @ ..] if sequence.is_none() => {
                (sequence, rest) = number_or_null(tail)?;
            }
            [b'"', b't', b'"', b':', tail @ ..] if event.is_none() => {
                (event, rest) = name_or_null(tail)?;
            }
            [b'"', b'o', b'p', b'"', b':', tail @ ..] if op.is_none() => {
                (op, rest) = number(tail)?;
            }
            _ => return None,
        }
        rest = rest.strip_prefix(b",")?;
    }
}

fn number(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    // 19 digits always fit into 64 bits; JSON does not allow a leading zero.
    let digits = text.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 19 || (digits > 1 && text[0] == b'0') {
        return None;
    }
    let value = text[..digits].iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((Some(value), &text[digits..]))
}

fn number_or_null(text: &[u8]) -> Option<(Option<Option<u64>>, &[u8])> {
    match text.strip_prefix(b"null") {
        Some(rest) => Some((Some(None), rest)),
        None => number(text).map(|(value, rest)| (Some(value), rest)),
    }
}

type Name<'a> = Option<Option<Cow<'a, str>>>;

fn name_or_null(text: &[u8]) -> Option<(Name<'_>, &[u8])> {
    if let Some(rest) = text.strip_prefix(b"null") {
        return Some((Some(None), rest));
    }
    let text = text.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', text)?;
    // Only the characters of event names: nothing escaped, nothing that needs a UTF-8 check.
    let plain = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    text[..end].iter().all(plain).then_some(())?;
    let name = std::str::from_utf8(&text[..end]).ok()?;
    Some((Some(Some(Cow::Borrowed(name))), &text[end + 1..]))
}

/// Whether `data` can be a single value, judged by its first and last byte.
fn ends_as_it_begins(data: &[u8]) -> bool {
    match (data.first(), data.last()) {
        (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')) => data.len() > 1,
        (Some(b'{' | b'[' | b'"') | None, _) => false,
        // Neither string, object nor array: `null`, `true`, `false` or a number.
        _ => {
            data.len() <= 24
                && data.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
        }
    }
}

/// Whether `data` cannot contain a second payload. If nothing looks like one, this takes a single search with
/// vector instructions; otherwise the brackets are counted.
fn is_alone(data: &[u8]) -> bool {
    if OP_KEY.find(data).is_none() {
        return true;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in data.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1 == data.len();
                }
            }
            _ => {}
        }
    }
    false
}

fn parse(message: &[u8]) -> Result<(Envelope<'_>, &[u8]), MalformedPayload> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        op: &'a RawValue,
        #[serde(default, borrow)]
        s: Option<&'a RawValue>,
        #[serde(default, borrow)]
        t: Option<Cow<'a, str>>,
        #[serde(default, borrow)]
        d: Option<&'a RawValue>,
    }
    let mut payloads = serde_json::Deserializer::from_slice(message).into_iter::<Raw<'_>>();
    let raw = payloads.next().unwrap_or_else(|| Err(serde_json::Error::custom("the message is empty")));
    let raw = raw.map_err(|source| malformed(message, source))?;
    let rest = message[payloads.byte_offset()..].trim_ascii_start();
    let op = opcode(raw.op.get())
        .ok_or_else(|| malformed(message, serde_json::Error::custom("op is not a number of an opcode")))?;
    let sequence = raw.s.and_then(|s| whole_number(s.get().trim_matches('"')));
    let data = raw.d.map_or("null", RawValue::get).as_bytes();
    Ok((Envelope { op, sequence, event: raw.t, data }, rest))
}

fn malformed(message: &[u8], source: serde_json::Error) -> MalformedPayload {
    MalformedPayload { bytes: message.len(), source }
}

/// Parses the opcode. A number that does not fit counts as an unknown opcode.
fn opcode(text: &str) -> Option<u64> {
    whole_number(text).or_else(|| text.starts_with(|c: char| c.is_ascii_digit()).then_some(u64::MAX))
}

/// Parses a whole number, also one written as a float.
fn whole_number(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        // Above 2⁵³ a float is not exact.
        (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number)).then_some(number as u64)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope<'a>(op: u64, sequence: Option<u64>, event: Option<&'a str>, data: &'a str) -> Envelope<'a> {
        Envelope { op, sequence, event: event.map(Cow::Borrowed), data: data.as_bytes() }
    }

    #[test]
    fn gw_018_any_order_of_keys_and_any_white_space() {
        let data = r#"{"id":"1","s":9,"op":3,"t":"X","d":{"d":1}}"#;
        let expected = envelope(0, Some(42), Some("TYPING_START"), data);
        let keys = [
            r#""op":0"#.to_owned(),
            r#""s":42"#.into(),
            r#""t":"TYPING_START""#.into(),
            format!(r#""d":{data}"#),
        ];
        for order in [[0, 1, 2, 3], [2, 1, 0, 3], [3, 2, 1, 0], [0, 3, 1, 2], [1, 2, 3, 0], [2, 3, 0, 1]] {
            let parts = order.map(|at| keys[at].as_str());
            let compact = format!("{{{}}}", parts.join(","));
            assert_eq!(Envelope::split(compact.as_bytes()).unwrap(), expected, "{compact}");
            let spaced = format!(" {{ {} }}\n", parts.join(" ,\t"));
            assert_eq!(Envelope::split(spaced.as_bytes()).unwrap(), expected, "{spaced}");
        }
        let scanned = format!("{{{},{},{},{}}}", keys[2], keys[1], keys[0], keys[3]);
        assert_eq!(scan(scanned.as_bytes()), Some(expected), "Discord's own order takes the fast scan");
    }

    #[test]
    fn gw_017_absent_and_null_are_the_same() {
        for text in [
            // GW-065: the `d` of op 11 (Heartbeat ACK) is `null` or absent.
            r#"{"op":11}"#,
            r#"{"op":11,"d":null}"#,
            r#"{"t":null,"s":null,"op":11,"d":null}"#,
            r#"{"op":11,"d":null,"s":null,"t":null}"#,
        ] {
            assert_eq!(Envelope::split(text.as_bytes()).unwrap(), envelope(11, None, None, "null"), "{text}");
        }
    }

    #[test]
    fn gw_021_unknown_keys_anywhere_are_ignored() {
        for text in [
            r#"{"x":[1],"t":"A","s":1,"op":0,"d":{"a":1}}"#,
            r#"{"t":"A","s":1,"op":0,"x":{"d":2},"d":{"a":1}}"#,
            r#"{"t":"A","s":1,"op":0,"d":{"a":1},"x":[2]}"#,
            r#"{"t":"A","s":1,"op":0,"d":{"a":1},"x":"}"}"#,
            r#"{"t":"A","s":1,"op":0,"d":{"a":1},"x":null}"#,
        ] {
            assert_eq!(
                Envelope::split(text.as_bytes()).unwrap(),
                envelope(0, Some(1), Some("A"), r#"{"a":1}"#),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_read_however_they_are_written() {
        for (text, op, sequence) in [
            (r#"{"op":0.0,"s":42.0}"#, 0, Some(42)),
            (r#"{"op":0,"s":"42"}"#, 0, Some(42)),
            (r#"{"op":0,"s":4.2e1}"#, 0, Some(42)),
            (r#"{"op":0,"s":-1}"#, 0, None),
            (r#"{"op":0,"s":1.5}"#, 0, None),
            (r#"{"op":0,"s":"x"}"#, 0, None),
            (r#"{"op":0,"s":{"s":1}}"#, 0, None),
            (r#"{"op":0,"s":18446744073709551616}"#, 0, None),
            (r#"{"op":18446744073709551616}"#, u64::MAX, None),
            (r#"{"op":1e300}"#, u64::MAX, None),
        ] {
            let envelope = Envelope::split(text.as_bytes()).unwrap();
            assert_eq!((envelope.op, envelope.sequence), (op, sequence), "{text}");
        }
    }

    #[test]
    fn several_payloads_in_one_message_are_split_one_by_one() {
        let payloads = [
            r#"{"t":"A","s":1,"op":0,"d":{"a":{"b":"}{"}}}"#,
            r#"{"op":11}"#,
            r#"{"t":null,"s":null,"op":9,"d":false}"#,
            r#"{"d":[1],"op":99}"#,
            r#"{"t":"B","s":2,"op":0,"d":{"op":1}}"#,
        ];
        for separator in ["", "\n", " \r\n\t"] {
            let message = payloads.join(separator) + separator;
            let mut rest = message.as_bytes();
            for payload in payloads {
                let (envelope, behind) = Envelope::split_first(rest).unwrap();
                assert_eq!(envelope, Envelope::split(payload.as_bytes()).unwrap(), "{message}");
                rest = behind;
            }
            assert_eq!(rest, b"");
        }
        let text = r#"{"t":"A","s":1,"op":0,"d":{"content":"\"op\":1}{"}}"#;
        assert!(scan(text.as_bytes()).is_some(), "a chat message about opcodes takes the fast scan");
    }

    #[test]
    fn escaped_names_are_read() {
        let text = r#"{"t":"\u0052EADY","s":1,"op":0,"d":{}}"#;
        assert_eq!(Envelope::split(text.as_bytes()).unwrap().event_name(), Some(EventName::Ready));
    }

    #[test]
    fn what_is_no_payload_is_an_error() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"op":"0"}"#,
            r#"{"op":-1}"#,
            r#"{"op":{}}"#,
            r#"{"op":0,"t":5}"#,
            r#"{"op":0,"d":{}}{"#,
            r#"{"t":"A","s":1,"op":0,"d":{"a":1}}{"t":"B","s":2,"op":0,"d":{"a":2}}"#,
        ] {
            let error = Envelope::split(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("a payload of {} bytes is malformed", text.len()));
        }
        assert!(Envelope::split(b"{\"op\":0,\"t\":\"\xff\"}").is_err());
    }

    #[test]
    fn gw_025_261_262_the_guild_is_that_of_the_event_and_not_of_something_in_it() {
        for (event, data, guild) in [
            ("MESSAGE_CREATE", r#"{"id":"5","guild_id":"7","message_reference":{"guild_id":"9"}}"#, Some(7)),
            ("MESSAGE_CREATE", r#"{"author":{"primary_guild":{"guild_id":"9"}},"guild_id":"7"}"#, Some(7)),
            ("MESSAGE_CREATE", r#"{"id":"5","message_reference":{"guild_id":"9"}}"#, None),
            ("GUILD_CREATE", r#"{"id":"7","channels":[{"id":"8","guild_id":"9"}]}"#, Some(7)),
            ("GUILD_DELETE", r#"{"id":"7","unavailable":true}"#, Some(7)),
            ("GUILD_MEMBERS_CHUNK", r#"{"guild_id":7}"#, Some(7)),
            ("TYPING_START", r#"{"guild_id":null}"#, None),
            ("TYPING_START", "[]", None),
            ("RESUMED", "{}", None),
        ] {
            assert_eq!(envelope(0, Some(1), Some(event), data).guild_id(), guild, "{event} {data}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map("[a-z\"{}]{0,3}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn splitting_agrees_with_a_json_parser(
            op in 0_u64..50, s in any::<Option<u32>>(), t in prop::option::of("[A-Z_]{0,9}"), d in json(), order in 0_usize..24,
        ) {
            let mut keys = vec![
                format!(r#""op":{op}"#),
                format!(r#""s":{}"#, serde_json::to_string(&s).unwrap()),
                format!(r#""t":{}"#, serde_json::to_string(&t).unwrap()),
                format!(r#""d":{d}"#),
            ];
            let mut text = String::new();
            let mut order = order;
            for left in (1..=4).rev() {
                text.push(if text.is_empty() { '{' } else { ',' });
                text.push_str(&keys.remove(order % left));
                order /= left;
            }
            text.push('}');
            // GW-031: a message is one payload of UTF-8 JSON.
            let envelope = Envelope::split(text.as_bytes()).unwrap();
            prop_assert_eq!(envelope.op, op);
            prop_assert_eq!(envelope.sequence, s.map(u64::from));
            prop_assert_eq!(envelope.event.as_deref(), t.as_deref());
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(envelope.data).unwrap(), d);
        }

        #[test]
        fn two_in_one_message_are_never_mixed_up(
            s in any::<Option<u32>>(), one in json(), two in json(), spaces in "[ \n\r\t]{0,3}",
        ) {
            let payload = |d: &serde_json::Value| {
                format!(r#"{{"t":"A","s":{},"op":0,"d":{d}}}"#, serde_json::to_string(&s).unwrap())
            };
            let message = payload(&one) + &spaces + &payload(&two);
            let (first, rest) = Envelope::split_first(message.as_bytes()).unwrap();
            let (second, end) = Envelope::split_first(rest).unwrap();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(first.data).unwrap(), one);
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(second.data).unwrap(), two);
            prop_assert_eq!(end, b"");
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::split_first(&bytes);
        }

        #[test]
        fn no_mangled_payload_panics(cut in 0_usize..70, put in any::<u8>()) {
            let mut text = br#"{"t":"TYPING_START","s":42,"op":0,"d":{"id":"1","a":[1,2,{"x":null}]}}"#.to_vec();
            let at = cut.min(text.len() - 1);
            text[at] = put;
            let _ = Envelope::split(&text);
            let _ = Envelope::split(&text[..at]);
        }
    }
}
