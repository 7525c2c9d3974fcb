use proptest::prelude::*;
use serde_json::{Value, json};

use super::decode::{Form, MAX_DEPTH, first_to_json, to_json};
use super::{EtfError, from_json};
use crate::envelope::scan;
use crate::{Envelope, EventName};

const LIMIT: usize = 1 << 20;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The JSON text of a whole message.
fn decode(term: &[u8]) -> Result<String, EtfError> {
    let mut json = b"left over".to_vec();
    let result = to_json(term, LIMIT, &mut json);
    let text = String::from_utf8(json).unwrap();
    assert!(result.is_ok() || text.is_empty());
    result.map(|()| text)
}

/// The JSON text of one term, given without the version byte.
fn term(parts: &[&[u8]]) -> Result<String, EtfError> {
    decode(&[b"\x83", parts.concat().as_slice()].concat())
}

fn encode(json: &str) -> Vec<u8> {
    from_json(json).unwrap()
}

fn binary(text: &str) -> Vec<u8> {
    [b"m", u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat()
}

fn atom(text: &str) -> Vec<u8> {
    [b"w", [u8::try_from(text.len()).unwrap()].as_slice(), text.as_bytes()].concat()
}

fn big(value: u64) -> Vec<u8> {
    [b"n\x08\x00", value.to_le_bytes().as_slice()].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut term = [b"t", u32::try_from(pairs.len()).unwrap().to_be_bytes().as_slice()].concat();
    for (key, value) in pairs {
        term.extend(atom(key));
        term.extend(value);
    }
    term
}

/// A READY as Erlang writes it: keys sorted, so `d` comes first.
fn ready() -> Vec<u8> {
    let user = map(&[
        ("bot", atom("true")),
        ("email", atom("nil")),
        ("id", big(41_771_983_423_143_937)),
        ("username", binary("a \"quoted\" näme")),
    ]);
    let guild = map(&[("id", big(613_425_648_685_547_541)), ("unavailable", atom("true"))]);
    let data = map(&[
        ("application", map(&[("flags", hex("6200808000")), ("id", binary("1234"))])),
        ("guilds", [hex("6c00000002"), guild.clone(), guild, hex("6a")].concat()),
        ("ratio", [hex("46"), 0.5_f64.to_be_bytes().to_vec()].concat()),
        ("shard", hex("6b00020001")),
        ("user", user),
        ("v", hex("610a")),
    ]);
    let envelope = map(&[("d", data), ("op", hex("6100")), ("s", hex("6101")), ("t", atom("READY"))]);
    [hex("83"), envelope].concat()
}

const READY: &str = r#"{"op":0,"s":1,"t":"READY","d":{"application":{"flags":8421376,"id":"1234"},"guilds":[{"id":"613425648685547541","unavailable":true},{"id":"613425648685547541","unavailable":true}],"ratio":0.5,"shard":[0,1],"user":{"bot":true,"email":null,"id":"41771983423143937","username":"a \"quoted\" näme"},"v":10}}"#;

#[test]
fn gw_033_035_heartbeats_to_send() {
    let with_sequence = hex("8374000000026d000000026f7061016d000000016461fb");
    // GW-034: the term after the version byte is never compressed.
    assert_eq!(encode(r#"{"op":1,"d":251}"#), with_sequence);
    let without = hex("8374000000026d000000026f7061016d000000016473036e696c");
    assert_eq!(encode(r#"{"op":1,"d":null}"#), without);
    assert_eq!(decode(&with_sequence).unwrap(), r#"{"op":1,"d":251}"#);
    assert_eq!(decode(&without).unwrap(), r#"{"op":1,"d":null}"#);
}

#[test]
fn gw_036_a_received_hello() {
    let hello = hex(
        "837400000004770164740000000177126865617274626561745f696e74657276616c620000a12277026f70610a77017377036e696c77017477036e696c",
    );
    let json = decode(&hello).unwrap();
    assert_eq!(json, r#"{"op":10,"s":null,"t":null,"d":{"heartbeat_interval":41250}}"#);
    assert!(scan(json.as_bytes()).is_some());
}

#[test]
fn gw_032_ids_are_strings_as_in_json() {
    let snowflake = hex("6e0700010080c9656794");
    assert_eq!(term(&[&snowflake]).unwrap(), "41771983423143937");
    for key in ["id", "guild_id"] {
        let expected = format!(r#"{{"{key}":"41771983423143937"}}"#);
        assert_eq!(term(&[&map(&[(key, snowflake.clone())])]).unwrap(), expected);
        assert_eq!(term(&[&map(&[(key, binary("41771983423143937"))])]).unwrap(), expected);
    }
    for key in ["roles", "ids", "channel_ids"] {
        let list = [hex("6c00000002"), snowflake.clone(), snowflake.clone(), hex("6a")].concat();
        let expected = format!(r#"{{"{key}":["41771983423143937","41771983423143937"]}}"#);
        assert_eq!(term(&[&map(&[(key, list)])]).unwrap(), expected);
    }
    // A list of other values under the same key, and what follows it.
    let roles = [hex("6c00000001"), map(&[("position", big(1 << 40))]), hex("6a")].concat();
    assert_eq!(
        term(&[&map(&[("roles", roles), ("n", big(1 << 40))])]).unwrap(),
        r#"{"roles":[{"position":1099511627776}],"n":1099511627776}"#
    );
    // The key is an integer, and its value an id.
    assert_eq!(term(&[&hex("740000000161016e0700010080c9656794")]).unwrap(), r#"{"1":"41771983423143937"}"#);
}

#[test]
fn gw_025_what_is_too_small_for_an_id_stays_an_integer() {
    let list = [hex("6c00000003"), hex("620001e0f3"), big((1 << 32) - 1), big(1 << 32), hex("6a")].concat();
    assert_eq!(
        term(&[&map(&[("not_found", list)])]).unwrap(),
        r#"{"not_found":[123123,4294967295,"4294967296"]}"#
    );
    assert_eq!(term(&[&map(&[("id", hex("6107"))])]).unwrap(), r#"{"id":7}"#);
    assert_eq!(
        term(&[&map(&[("id", hex("6e08010000000000000080"))])]).unwrap(),
        r#"{"id":-9223372036854775808}"#
    );
}

#[test]
fn the_key_decides_what_integers_become() {
    let table = [
        (
            Form::Id,
            "id ids user_id sku_ids roles mention_roles applied_tags exempt_roles exempt_channels not_found values 0 1",
        ),
        (Form::Text, "permissions app_permissions default_member_permissions allow deny flags_new"),
        (Form::IdOrNumber, "value old_value new_value"),
        (Form::Number, "since start end created_at flags position d s op valid idle ID _identity 2 10"),
    ];
    for (form, keys) in table {
        for key in keys.split(' ') {
            assert_eq!(Form::under(key), form, "{key}");
        }
    }
    let of = |key: &str, value: u64| term(&[&map(&[(key, big(value))])]).unwrap();
    assert_eq!(of("created_at", 1_700_000_000_000), r#"{"created_at":1700000000000}"#);
    assert_eq!(of("start", u64::MAX), r#"{"start":18446744073709551615}"#);
    assert_eq!(of("permissions", 0), r#"{"permissions":"0"}"#);
    assert_eq!(of("deny", 1 << 50), r#"{"deny":"1125899906842624"}"#);
    assert_eq!(of("value", 1 << 53), r#"{"value":9007199254740992}"#);
    assert_eq!(of("value", (1 << 53) + 1), r#"{"value":"9007199254740993"}"#);
}

#[test]
fn gw_036_037_atoms_in_all_four_tags() {
    let with = |tag: u8, text: &[u8]| {
        let length = text.len() as u8;
        match tag {
            100 | 118 => term(&[&[tag, 0, length], text]),
            _ => term(&[&[tag, length], text]),
        }
    };
    for tag in [100, 115, 118, 119] {
        assert_eq!(with(tag, b"nil").unwrap(), "null");
        assert_eq!(with(tag, b"null").unwrap(), "null");
        assert_eq!(with(tag, b"true").unwrap(), "true");
        assert_eq!(with(tag, b"false").unwrap(), "false");
        assert_eq!(with(tag, b"READY").unwrap(), "\"READY\"");
        assert_eq!(with(tag, b"").unwrap(), "\"\"");
    }
    for tag in [100, 115] {
        assert_eq!(with(tag, b"n\xe4h").unwrap(), "\"näh\"");
        // As UTF-8 these bytes would be another text.
        assert_eq!(with(tag, "ä".as_bytes()).unwrap(), "\"Ã¤\"");
    }
    for tag in [118, 119] {
        assert_eq!(with(tag, "näh".as_bytes()).unwrap(), "\"näh\"");
        assert_eq!(with(tag, b"n\xe4h"), Err(EtfError::NotUtf8 { at: 1 }));
    }
    // As keys, the special atoms and integers become strings.
    let keys = hex("740000000477036e696c610177047472756561016102610162ffffffff6101");
    assert_eq!(term(&[&keys]).unwrap(), r#"{"nil":1,"true":1,"2":1,"-1":1}"#);
}

#[test]
fn gw_038_lists() {
    assert_eq!(term(&[b"\x6b\x00\x02\x00\x01"]).unwrap(), "[0,1]");
    assert_eq!(term(&[b"\x6b\x00\x03\x00\xff\x80"]).unwrap(), "[0,255,128]");
    assert_eq!(term(&[b"\x6b\x00\x00"]).unwrap(), "[]");
    assert_eq!(term(&[b"\x6a"]).unwrap(), "[]");
    assert_eq!(term(&[&hex("6c000000006a")]).unwrap(), "[]");
    assert_eq!(term(&[&hex("6c0000000261016a6a")]).unwrap(), "[1,[]]");
    assert_eq!(term(&[&hex("6c0000000161016102")]), Err(EtfError::ImproperList { at: 8 }));
    assert_eq!(term(&[&hex("6c000000016101")]), Err(EtfError::Truncated { at: 8 }));
}

#[test]
fn gw_039_integers() {
    for (bytes, expected) in [
        ("6100", "0"),
        ("61ff", "255"),
        ("62ffffffff", "-1"),
        ("6280000000", "-2147483648"),
        ("627fffffff", "2147483647"),
        ("6e0000", "0"),
        ("6e010100", "0"),
        ("6e010105", "-5"),
        ("6e0800ffffffffffffffff", "18446744073709551615"),
        ("6e08010000000000000080", "-9223372036854775808"),
        ("6f00000002000001", "256"),
    ] {
        assert_eq!(term(&[&hex(bytes)]).unwrap(), expected, "{bytes}");
    }
    for bytes in ["6e08010100000000000080", "6e0900000000000000000001", "6f0000000900000000000000000001"] {
        assert_eq!(term(&[&hex(bytes)]), Err(EtfError::IntegerTooLarge { at: 1 }), "{bytes}");
    }
    assert_eq!(term(&[&hex("6fffffffff00")]), Err(EtfError::Truncated { at: 7 }));
}

#[test]
fn gw_039_floats_binaries_tuples_and_maps() {
    let float = |value: f64| term(&[b"F", &value.to_be_bytes()]);
    assert_eq!(float(1.5).unwrap(), "1.5");
    assert_eq!(float(-2.0).unwrap(), "-2.0");
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(float(value), Err(EtfError::NotFinite { at: 1 }));
    }
    let text = "\0 \n \" \\ / \u{7f} ü \u{2028} 🦀";
    assert_eq!(term(&[&binary(text)]).unwrap(), serde_json::to_string(text).unwrap());
    assert_eq!(term(&[b"m\0\0\0\x01\xff"]), Err(EtfError::NotUtf8 { at: 1 }));
    assert_eq!(term(&[&hex("680261016102")]).unwrap(), "[1,2]");
    assert_eq!(term(&[&hex("6800")]).unwrap(), "[]");
    assert_eq!(term(&[&hex("69000000016800")]).unwrap(), "[[]]");
    assert_eq!(term(&[&hex("7400000000")]).unwrap(), "{}");
    assert_eq!(term(&[&hex("74000000016a6101")]), Err(EtfError::UnsupportedKey { at: 6, tag: 106 }));
}

#[test]
fn gw_034_039_what_is_not_supported_says_so() {
    assert_eq!(term(&[b"\x50\0\0\0\x05"]), Err(EtfError::Compressed { at: 1 }));
    assert_eq!(term(&[b"\x63"]), Err(EtfError::UnsupportedTag { at: 1, tag: 99 }));
    let error = term(&[b"\x63"]).unwrap_err();
    assert_eq!(error.to_string(), "byte 1 holds tag 99, which is not supported");
    // GW-035: every message starts with byte 131.
    assert_eq!(decode(b""), Err(EtfError::NoVersion));
    assert_eq!(decode(b"\x82\x61\x00"), Err(EtfError::NoVersion));
    assert_eq!(decode(b"\x83"), Err(EtfError::Truncated { at: 1 }));
    assert_eq!(decode(b"\x83\x61\x00\x00"), Err(EtfError::TrailingBytes { at: 3 }));
}

#[test]
fn a_ready_comes_out_with_d_last_so_that_the_envelope_is_scanned() {
    let json = decode(&ready()).unwrap();
    assert_eq!(json, READY);
    let envelope = scan(json.as_bytes()).expect("the fast scan");
    assert_eq!(envelope, Envelope::split(json.as_bytes()).unwrap());
    assert_eq!((envelope.op, envelope.sequence), (0, Some(1)));
    assert_eq!(envelope.event_name(), Some(EventName::Ready));
}

#[test]
fn d_is_last_wherever_it_was_and_elsewhere_the_order_stays() {
    let one = || hex("6101");
    for keys in [["d", "op", "s", "t"], ["op", "d", "s", "t"], ["op", "s", "d", "t"], ["op", "s", "t", "d"]] {
        assert_eq!(term(&[&map(&keys.map(|key| (key, one())))]).unwrap(), r#"{"op":1,"s":1,"t":1,"d":1}"#);
    }
    let inner = map(&[("d", one()), ("a", one())]);
    assert_eq!(term(&[&map(&[("d", inner), ("op", one())])]).unwrap(), r#"{"op":1,"d":{"d":1,"a":1}}"#);
    let in_list = [hex("6c00000001"), map(&[("d", one()), ("a", one())]), hex("6a")].concat();
    assert_eq!(term(&[&in_list]).unwrap(), r#"[{"d":1,"a":1}]"#);
}

#[test]
fn nesting_is_bounded_where_serde_json_bounds_it() {
    let nested = |(head, tail): (&[u8], &[u8]), heart: &[u8], depth: usize| {
        term(&[&head.repeat(depth), heart, &tail.repeat(depth)])
    };
    let list: (&[u8], &[u8]) = (b"l\0\0\0\x01", b"\x6a");
    let tuple: (&[u8], &[u8]) = (b"h\x01", b"");
    let map: (&[u8], &[u8]) = (b"t\0\0\0\x01w\x01a", b"");
    // The innermost list counts as a level, whatever its tag is.
    let hearts: [&[u8]; 4] = [b"\x6a", b"\x6b\0\x01\0", b"l\0\0\0\0\x6a", b"t\0\0\0\0"];
    for around in [list, tuple, map] {
        for heart in hearts {
            let deepest = nested(around, heart, MAX_DEPTH - 1).unwrap();
            assert!(serde_json::from_str::<Value>(&deepest).is_ok());
            let at = 1 + around.0.len() * MAX_DEPTH;
            assert_eq!(nested(around, heart, MAX_DEPTH), Err(EtfError::TooDeep { at }));
            assert_eq!(nested(around, heart, 200_000), Err(EtfError::TooDeep { at }));
        }
        let deepest = nested(around, b"a\0", MAX_DEPTH).unwrap();
        assert!(serde_json::from_str::<Value>(&deepest).is_ok());
    }
    let text = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(decode(&encode(&text(MAX_DEPTH))).unwrap(), text(MAX_DEPTH));
    assert!(from_json(&text(MAX_DEPTH + 1)).is_err());
    assert!(from_json(&"[".repeat(200_000)).is_err());
}

#[test]
fn an_announced_length_costs_nothing() {
    for head in
        ["6cffffffff", "69ffffffff", "74ffffffff", "6dffffffff", "6fffffffff00", "68ff", "6bffff", "64ffff"]
    {
        let mut json = Vec::new();
        let error = to_json(&[hex("83"), hex(head)].concat(), usize::MAX, &mut json).unwrap_err();
        assert!(matches!(error, EtfError::Truncated { .. }), "{head}: {error}");
        assert!(json.capacity() < 64, "{head}");
    }
}

#[test]
fn the_text_ends_at_the_limit() {
    for message in [ready(), encode("[]"), encode(r#"["\n\n\n"]"#), encode("123"), encode(r#"{"a":{}}"#)] {
        let length = decode(&message).unwrap().len();
        let mut json = Vec::new();
        assert_eq!(to_json(&message, length, &mut json), Ok(()));
        assert_eq!(json.len(), length);
        for limit in 0..length {
            assert_eq!(to_json(&message, limit, &mut json), Err(EtfError::TooLarge { limit }));
            assert!(json.is_empty());
        }
    }
}

#[test]
fn a_part_of_a_message_is_no_message() {
    let message = ready();
    for end in 1..message.len() {
        let error = decode(&message[..end]).unwrap_err();
        assert!(matches!(error, EtfError::Truncated { .. }), "{end}: {error}");
    }
}

#[test]
fn no_mangled_message_panics_or_becomes_something_else_than_json() {
    let message = ready();
    for at in 0..message.len() {
        let mut mangled = message.clone();
        for byte in 0..=u8::MAX {
            mangled[at] = byte;
            if let Ok(text) = decode(&mangled) {
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
            }
        }
    }
}

#[test]
fn integers_to_send_take_the_smallest_form() {
    for (json, expected) in [
        ("255", "61ff"),
        ("256", "6200000100"),
        ("2147483647", "627fffffff"),
        ("2147483648", "6e040000000080"),
        ("18446744073709551615", "6e0800ffffffffffffffff"),
        ("-1", "62ffffffff"),
        ("-2147483648", "6280000000"),
        ("-2147483649", "6e040101000080"),
        ("-9223372036854775808", "6e08010000000000000080"),
    ] {
        assert_eq!(encode(json), hex(&format!("83{expected}")), "{json}");
        assert_eq!(decode(&encode(json)).unwrap(), json);
    }
}

#[test]
fn the_other_terms_to_send() {
    // GW-034: no term is compressed.
    assert_eq!(encode("1.5"), hex("83463ff8000000000000"));
    assert_eq!(encode("[]"), hex("836a"));
    assert_eq!(encode("{}"), hex("837400000000"));
    assert_eq!(encode("[0, 16]"), hex("836c00000002610061106a"));
    assert_eq!(encode("[true,false]"), hex("836c00000002730474727565730566616c73656a"));
    assert_eq!(encode(r#"{"é":"\n"}"#), hex("8374000000016d00000002c3a96d000000010a"));
}

#[test]
fn gw_033_what_is_no_json_is_not_sent() {
    for text in ["", "{", "[1,]", "{} {}", "{1:2}", "\"\\ud800\"", "1e999"] {
        let error = from_json(text).unwrap_err();
        assert_eq!(error.to_string(), format!("a payload of {} bytes is malformed", text.len()));
    }
}

/// Floats and keys that survive two conversions: short floats, and keys under which no integer becomes a
/// string.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<u8>().prop_map(Into::into),
        any::<i32>().prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map("d|k[a-z\"\\\\é]{0,3}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Random bytes with more term tags than chance would give.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::sample::select(b"FPabdhijklmnostvw".to_vec());
    let byte = prop_oneof![3 => tag, 3 => 0_u8..4, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..300)
}

proptest! {
    #[test]
    fn there_and_back_is_the_same(value in value()) {
        let there = encode(&value.to_string());
        prop_assert_eq!(serde_json::from_str::<Value>(&decode(&there).unwrap()).unwrap(), value);
    }

    #[test]
    fn no_bytes_panic_or_pass_the_limit(bytes in noise(), limit in 0_usize..400) {
        let mut json = Vec::new();
        let message = [b"\x83", bytes.as_slice()].concat();
        if to_json(&message, limit, &mut json).is_ok() {
            prop_assert!(json.len() <= limit);
            prop_assert!(serde_json::from_slice::<Value>(&json).is_ok());
        } else {
            prop_assert!(json.is_empty());
        }
        let _ = to_json(&bytes, limit, &mut json);
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = from_json(&text);
    }
}

#[test]
fn commands_keep_their_meaning() {
    let identify = json!({
        "op": 2,
        "d": {"token": "T", "shard": [0, 16], "intents": 53_575_421_u64, "presence": {"since": null, "afk": false}},
    });
    let json = decode(&encode(&identify.to_string())).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), identify);
}

#[test]
fn several_terms_in_one_message_are_read_one_by_one() {
    let (one, two) = (from_json(r#"{"op":1,"d":[1]}"#).unwrap(), from_json("7").unwrap());
    let message = [one.clone(), two.clone(), one].concat();
    let mut json = Vec::new();
    let rest = first_to_json(&message, 100, &mut json).unwrap();
    assert_eq!(json, br#"{"op":1,"d":[1]}"#);
    let rest = first_to_json(rest, 100, &mut json).unwrap();
    assert_eq!(json, b"7");
    assert_eq!(first_to_json(rest, 100, &mut json), Ok(&b""[..]));
    assert_eq!(
        to_json(&message, 100, &mut json),
        Err(EtfError::TrailingBytes { at: message.len() - rest.len() - two.len() })
    );
    assert!(json.is_empty());
}
