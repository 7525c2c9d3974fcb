//! Converts the JSON text of a command to ETF.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::{VERSION, tag};
use crate::MalformedPayload;

/// Converts a command, such as [`Payload::text`](crate::Payload::text), to a message, in the order of its
/// keys.
///
/// Keys and strings become binaries (Discord answers atoms as keys with close code 4002, GW-033), `null` and
/// the booleans become atoms. An id may stay a string (GW-032). Small integers in lists make the message
/// larger than the text, so the sender must check the size of the message against
/// [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES).
///
/// # Errors
///
/// When the text is not JSON, or nested more deeply than `serde_json` parses.
pub fn from_json(json: &str) -> Result<Vec<u8>, MalformedPayload> {
    let mut term = Vec::with_capacity(json.len() + 16);
    term.push(VERSION);
    let mut text = serde_json::Deserializer::from_str(json);
    match Encoder(&mut term).deserialize(&mut text).and_then(|()| text.end()) {
        Ok(()) => Ok(term),
        Err(source) => Err(MalformedPayload { bytes: json.len(), source }),
    }
}

/// Writes each visited value at once; a tree in between would sort the keys.
struct Encoder<'a>(&'a mut Vec<u8>);

impl Encoder<'_> {
    fn atom(self, name: &str) {
        self.0.extend([tag::SMALL_ATOM, name.len() as u8]);
        self.0.extend(name.as_bytes());
    }

    fn big(self, negative: bool, value: u64) {
        let digits = value.to_le_bytes();
        let count = digits.len() - value.leading_zeros() as usize / 8;
        self.0.extend([tag::SMALL_BIG, count as u8, u8::from(negative)]);
        self.0.extend(&digits[..count]);
    }

    /// Writes a header and the elements, then fills in the count, which is known only at the end.
    fn counted<E: Error>(
        &mut self,
        tag: u8,
        write: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.0.extend([tag, 0, 0, 0, 0]);
        let behind = self.0.len();
        let count = write(self.0)?;
        let bytes = u32::try_from(count).map_err(|_| E::custom("more than 2^32 elements"))?.to_be_bytes();
        self.0[behind - 4..behind].copy_from_slice(&bytes);
        Ok(count)
    }
}

impl<'de> DeserializeSeed<'de> for Encoder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Encoder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.atom("nil");
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.atom(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match (u8::try_from(value), i32::try_from(value)) {
            (Ok(small), _) => self.0.extend([tag::SMALL_INTEGER, small]),
            (_, Ok(integer)) => {
                self.0.push(tag::INTEGER);
                self.0.extend(integer.to_be_bytes());
            }
            _ => self.big(false, value),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match (u64::try_from(value), i32::try_from(value)) {
            (Ok(positive), _) => return self.visit_u64(positive),
            (_, Ok(integer)) => {
                self.0.push(tag::INTEGER);
                self.0.extend(integer.to_be_bytes());
            }
            _ => self.big(true, value.unsigned_abs()),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.push(tag::NEW_FLOAT);
        self.0.extend(value.to_be_bytes());
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.counted(tag::BINARY, |term| {
            term.extend(value.as_bytes());
            Ok(value.len())
        })?;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let start = self.0.len();
        let count = self.counted(tag::LIST, |term| {
            let mut count = 0;
            while list.next_element_seed(Encoder(term))?.is_some() {
                count += 1;
            }
            Ok(count)
        })?;
        if count == 0 {
            self.0.truncate(start);
        }
        // The empty list, which also ends every other list.
        self.0.push(tag::NIL);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.counted(tag::MAP, |term| {
            let mut count = 0;
            while map.next_key_seed(Encoder(term))?.is_some() {
                map.next_value_seed(Encoder(term))?;
                count += 1;
            }
            Ok(count)
        })?;
        Ok(())
    }
}
