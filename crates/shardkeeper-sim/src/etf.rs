//! Erlang's External Term Format, as Discord writes and reads it (GW-032 to GW-039).
//!
//! The writer uses every form that clients have to accept: ids as integers, lists of small integers as
//! strings, and, if configured, atoms with all four tags. The reader is as strict as the rules.

use serde_json::{Map, Number, Value};

use crate::judgement::{self, Judgement};

/// The deepest nesting that is read. Valid payloads, which have at most 4096 bytes, are far from it.
const MAX_DEPTH: usize = 32;

/// Which tags atoms are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atoms {
    /// 100 and 115, the only ones that a library of many clients knows.
    Usual,
    /// All four tags, which clients have to accept (GW-037).
    Mixed,
}

/// Encodes a payload.
pub(crate) fn encode(payload: &Value, atoms: Atoms) -> Vec<u8> {
    let mut writer = Writer { atoms, out: vec![131] };
    writer.write(payload, "", true);
    writer.out
}

struct Writer {
    atoms: Atoms,
    out: Vec<u8>,
}

impl Writer {
    /// Writes a value that has this key. `outer` is true for the payload itself, the envelope of the data.
    fn write(&mut self, value: &Value, key: &str, outer: bool) {
        let out = &mut self.out;
        match value {
            Value::Null => self.atom("nil"),
            Value::Bool(true) => self.atom("true"),
            Value::Bool(false) => self.atom("false"),
            Value::Number(number) => write_number(number, out),
            // GW-032: ids are 64-bit integers.
            Value::String(text) if is_id(key) && text.parse::<u64>().is_ok_and(|id| id >> 32 > 0) => {
                write_big(text.parse().unwrap_or_default(), false, out);
            }
            Value::String(text) if key == "t" => self.atom(text),
            Value::String(text) => binary(text.as_bytes(), out),
            Value::Array(items) => self.write_list(items, key),
            Value::Object(map) => {
                out.push(116);
                out.extend(length(map.len()));
                for (key, value) in map {
                    // GW-036: Discord was observed to send keys as atoms and as binaries. Here the envelope's
                    // keys and those of even length are atoms.
                    if outer || key.len() % 2 == 0 {
                        self.atom(key);
                    } else {
                        binary(key.as_bytes(), &mut self.out);
                    }
                    self.write(value, if outer && key == "d" { "" } else { key }, false);
                }
            }
        }
    }

    fn write_list(&mut self, items: &[Value], key: &str) {
        let out = &mut self.out;
        if items.is_empty() {
            return out.push(106);
        }
        // GW-038: Erlang writes a list of small integers as a string.
        let small: Option<Vec<u8>> = items.iter().map(|item| u8::try_from(item.as_u64()?).ok()).collect();
        if let Some(small) = small
            && let Ok(length) = u16::try_from(small.len())
        {
            out.push(107);
            out.extend(length.to_be_bytes());
            return out.extend(small);
        }
        out.push(108);
        out.extend(length(items.len()));
        items.iter().for_each(|item| self.write(item, key, false));
        self.out.push(106);
    }

    /// Writes an atom. The length of its name selects the tag.
    fn atom(&mut self, name: &str) {
        // Names of fields and events are short, and ASCII.
        let short = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let out = &mut self.out;
        let tags = match self.atoms {
            Atoms::Usual => 2,
            Atoms::Mixed => 4,
        };
        match name.len() % tags {
            0 => out.extend([100, 0, short]),
            1 => out.extend([115, short]),
            2 => out.extend([118, 0, short]),
            _ => out.extend([119, short]),
        }
        out.extend(&name.as_bytes()[..usize::from(short)]);
    }
}

fn is_id(key: &str) -> bool {
    key == "id" || key.ends_with("_id") || key.ends_with("_ids") || matches!(key, "roles" | "mention_roles")
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(small) = number.as_u64().and_then(|number| u8::try_from(number).ok()) {
        out.extend([97, small]);
    } else if let Some(integer) = number.as_i64().and_then(|number| i32::try_from(number).ok()) {
        out.push(98);
        out.extend(integer.to_be_bytes());
    } else if let Some(large) = number.as_u64() {
        write_big(large, false, out);
    } else if let Some(negative) = number.as_i64() {
        write_big(negative.unsigned_abs(), true, out);
    } else {
        out.push(70);
        out.extend(number.as_f64().unwrap_or_default().to_be_bytes());
    }
}

fn write_big(magnitude: u64, negative: bool, out: &mut Vec<u8>) {
    let digits = magnitude.to_le_bytes();
    let used = 8 - magnitude.leading_zeros() as usize / 8;
    // At most 8.
    out.extend([110, used as u8, u8::from(negative)]);
    out.extend(&digits[..used]);
}

fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(109);
    out.extend(length(bytes.len()));
    out.extend(bytes);
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Why a client's term is refused: the judgement, and what exactly is wrong.
pub(crate) type Refusal = (&'static Judgement, &'static str);

/// Decodes a term that a client has sent.
pub(crate) fn decode(term: &[u8]) -> Result<Value, Refusal> {
    let mut input = Input { rest: term };
    if input.byte()? != 131 {
        return Err((judgement::ETF_VERSION, "a term that does not begin with byte 131"));
    }
    let value = input.term(0)?;
    if input.rest.is_empty() {
        Ok(value)
    } else {
        Err((judgement::UNREADABLE, "bytes after the end of a term"))
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Refusal> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or((judgement::UNREADABLE, "a term that ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn length(&mut self) -> Result<usize, Refusal> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    fn text(&mut self, length: usize) -> Result<String, Refusal> {
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| (judgement::UNREADABLE, "text that is not UTF-8"))
    }

    fn term(&mut self, depth: usize) -> Result<Value, Refusal> {
        if depth > MAX_DEPTH {
            return Err((judgement::UNREADABLE, "a term that is nested too deep"));
        }
        Ok(match self.byte()? {
            70 => Number::from_f64(f64::from_be_bytes(self.array()?)).map_or(Value::Null, Value::Number),
            97 => self.byte()?.into(),
            98 => i32::from_be_bytes(self.array()?).into(),
            110 => self.big()?,
            100 | 118 => {
                let length = u16::from_be_bytes(self.array()?);
                self.atom(length.into())?
            }
            115 | 119 => {
                let length = self.byte()?;
                self.atom(length.into())?
            }
            109 => {
                let length = self.length()?;
                self.text(length)?.into()
            }
            106 => Value::Array(Vec::new()),
            107 => {
                let length = u16::from_be_bytes(self.array()?);
                self.take(length.into())?.into()
            }
            108 => {
                let mut items = Vec::new();
                for _ in 0..self.length()? {
                    items.push(self.term(depth + 1)?);
                }
                if self.byte()? != 106 {
                    return Err((judgement::ETF_LIST, "a list without an empty list as its tail"));
                }
                Value::Array(items)
            }
            116 => {
                let mut map = Map::new();
                for _ in 0..self.length()? {
                    let key = self.key()?;
                    map.insert(key, self.term(depth + 1)?);
                }
                Value::Object(map)
            }
            80 => return Err((judgement::ETF_COMPRESSED, "a compressed term")),
            _ => return Err((judgement::UNREADABLE, "an unknown tag in a term")),
        })
    }

    fn key(&mut self) -> Result<String, Refusal> {
        match self.byte()? {
            109 => {
                let length = self.length()?;
                self.text(length)
            }
            _ => Err((judgement::ETF_KEY, "a key that is not a binary")),
        }
    }

    fn atom(&mut self, length: usize) -> Result<Value, Refusal> {
        Ok(match self.text(length)?.as_str() {
            "nil" | "null" => Value::Null,
            "true" => true.into(),
            "false" => false.into(),
            other => other.into(),
        })
    }

    fn big(&mut self) -> Result<Value, Refusal> {
        let length = usize::from(self.byte()?);
        let negative = self.byte()? != 0;
        if length > 8 {
            return Err((judgement::UNREADABLE, "an integer of more than 64 bits"));
        }
        let mut digits = [0; 8];
        digits[..length].copy_from_slice(self.take(length)?);
        let magnitude = u64::from_le_bytes(digits);
        Ok(if negative { 0_i64.wrapping_sub_unsigned(magnitude).into() } else { magnitude.into() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn gw_035_036_known_heartbeats_are_read() {
        let heartbeat = bytes("8374000000026d000000026f7061016d000000016461fb");
        assert_eq!(decode(&heartbeat).unwrap(), json!({"op": 1, "d": 251}));
        let null = bytes("8374000000026d000000026f7061016d000000016473036e696c");
        assert_eq!(decode(&null).unwrap(), json!({"op": 1, "d": null}));
    }

    #[test]
    fn gw_033_034_what_discord_refuses_is_refused() {
        let atom_key = bytes("8374000000017702 6f706101".replace(' ', "").as_str());
        assert_eq!(decode(&atom_key).unwrap_err().0.rule, "GW-033");
        assert_eq!(decode(&[131, 80, 0, 0, 0, 1]).unwrap_err().0.rule, "GW-034");
        assert!(decode(&[131, 108, 255, 255, 255, 255]).is_err());
        let mut nested = vec![131];
        nested.extend([108, 0, 0, 0, 1].repeat(4000));
        assert!(decode(&nested).is_err());
    }

    #[test]
    fn gw_032_038_ids_are_integers_and_small_lists_are_strings() {
        let encoded =
            encode(&json!({"op": 0, "d": {"guild_id": "41771983423143937", "shard": [0, 1]}}), Atoms::Usual);
        let has = |hex: &str| encoded.windows(hex.len() / 2).any(|window| window == bytes(hex));
        assert!(has("6e0700010080c9656794"), "the id");
        assert!(has("6b00020001"), "the shard");
    }

    #[test]
    fn gw_037_atoms_have_the_usual_tags_unless_the_mixture_is_asked_for() {
        let payload = json!({"op": null, "t": true, "dd": {"name": false}, "abc": 1});
        let tags = |atoms| {
            let encoded = encode(&payload, atoms);
            // The tag is followed by the length of the atom's name, in one or two bytes, and the name.
            let names = ["nil", "true", "false", "op", "dd", "abc", "name"];
            let mut tags: Vec<u8> = names
                .iter()
                .filter_map(|name| {
                    let at = encoded.windows(name.len()).position(|window| window == name.as_bytes())?;
                    Some(if encoded[at - 2] == 0 { encoded[at - 3] } else { encoded[at - 2] })
                })
                .collect();
            tags.sort_unstable();
            tags.dedup();
            tags
        };
        assert_eq!(tags(Atoms::Usual), [100, 115]);
        assert_eq!(tags(Atoms::Mixed), [100, 115, 118, 119]);
    }
}
