//! Converts one ETF message to JSON text.

use std::borrow::Cow;
use std::io;

use serde::Serialize;

use super::{EtfError, VERSION, tag};

/// How deeply lists, tuples and maps may be nested: the limit of `serde_json`.
pub const MAX_DEPTH: usize = 127;

/// Converts one message to compact JSON text, which replaces the content of `json`.
///
/// In the outermost map `d` is written last, as in Discord's JSON: Erlang's maps are sorted, with `d` first,
/// and [`Envelope::split`](crate::Envelope::split) is fast only when `d` is last. Otherwise the order is
/// kept. A duplicate key, which Erlang never writes, is not detected.
///
/// # Errors
///
/// When the message is not exactly one term, or one that JSON cannot express; then `json` is empty.
///
/// # Bounds
///
/// The text has at most `limit` bytes, and terms are nested at most [`MAX_DEPTH`] deep. No number in the
/// message causes memory to be reserved or work to be repeated: the cost is proportional to the bytes
/// received.
///
/// # Discord
///
/// GW-032 and GW-035 to GW-039 list the terms that Discord sends; [ids](super#ids) are written as in JSON.
pub fn to_json(term: &[u8], limit: usize, json: &mut Vec<u8>) -> Result<(), EtfError> {
    let rest = first_to_json(term, limit, json)?;
    if !rest.is_empty() {
        json.clear();
        return Err(EtfError::TrailingBytes { at: term.len() - rest.len() });
    }
    Ok(())
}

/// Converts the first term of a message that may hold several, each with its version byte, and returns the
/// bytes after it. Otherwise the same as [`to_json`].
///
/// # Errors
///
/// When the message does not begin with a term that JSON can express; then `json` is empty.
pub fn first_to_json<'a>(message: &'a [u8], limit: usize, json: &mut Vec<u8>) -> Result<&'a [u8], EtfError> {
    json.clear();
    // One more byte for the comma after the outermost term.
    let mut writer = Writer { json, limit, end: limit.saturating_add(1) };
    let mut reader = Reader { rest: message, length: message.len() };
    let result = translate(&mut reader, &mut writer);
    match result {
        Ok(()) => json.truncate(json.len() - 1),
        Err(_) => json.clear(),
    }
    result.map(|()| reader.rest)
}

/// A list, tuple or map that is being written.
struct Open {
    kind: Kind,
    /// How many elements or pairs are still missing.
    left: u32,
    /// The form of a list's or tuple's elements. In a map, each key determines its own.
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Tuple,
    Map,
}

/// Writes a comma after each term; the closing bracket of a list or map replaces the last one.
fn translate(reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> Result<(), EtfError> {
    if reader.rest.first() != Some(&VERSION) {
        return Err(EtfError::NoVersion);
    }
    reader.rest = &reader.rest[1..];

    let mut open: Vec<Open> = Vec::with_capacity(16);
    let mut form = Form::Number;
    // Where `"d":` begins in the text, and the bytes that follow the value of `d`.
    let (mut data, mut behind) = (None, None);
    loop {
        let at = reader.at();
        let [tag] = reader.array()?;
        let kind = match tag {
            tag::LIST => Some((Kind::List, u32::from_be_bytes(reader.array()?))),
            tag::SMALL_TUPLE => Some((Kind::Tuple, u32::from(reader.array::<1>()?[0]))),
            tag::LARGE_TUPLE => Some((Kind::Tuple, u32::from_be_bytes(reader.array()?))),
            tag::MAP => Some((Kind::Map, u32::from_be_bytes(reader.array()?))),
            _ => None,
        };
        let nests = kind.is_some() || matches!(tag, tag::NIL | tag::STRING);
        if nests && open.len() == MAX_DEPTH {
            return Err(EtfError::TooDeep { at });
        }
        match kind {
            Some((kind, left)) => {
                writer.raw(if kind == Kind::Map { b"{" } else { b"[" })?;
                open.push(Open { kind, left, form });
            }
            None => {
                scalar(reader, writer, tag, at, form)?;
                writer.raw(b",")?;
            }
        }
        // Continues to the next value and closes everything that is complete before it.
        loop {
            let outermost = open.len() == 1;
            let Some(last) = open.last_mut() else {
                return Ok(());
            };
            if let Some(left) = last.left.checked_sub(1) {
                last.left = left;
                form = last.form;
                if last.kind == Kind::Map {
                    let key = reader.key()?;
                    form = Form::under(&key);
                    if outermost {
                        if data.is_none() && key == "d" {
                            data = Some(writer.json.len());
                        } else if data.is_some() {
                            behind.get_or_insert(writer.json.len());
                        }
                    }
                    writer.string(&key)?;
                    writer.raw(b":")?;
                }
                break;
            }
            if last.kind == Kind::List {
                let at = reader.at();
                if reader.array()? != [tag::NIL] {
                    return Err(EtfError::ImproperList { at });
                }
            }
            if let (true, Some(data), Some(behind)) = (outermost, data, behind) {
                writer.json[data..].rotate_left(behind - data);
            }
            writer.end(if last.kind == Kind::Map { b'}' } else { b']' })?;
            open.pop();
        }
    }
}

/// Writes a term that holds no other terms.
fn scalar(
    reader: &mut Reader<'_>,
    writer: &mut Writer<'_>,
    tag: u8,
    at: usize,
    form: Form,
) -> Result<(), EtfError> {
    match tag {
        tag::BINARY => writer.string(&reader.text(tag, at)?),
        tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => {
            match &*reader.text(tag, at)? {
                "nil" | "null" => writer.raw(b"null"),
                "true" => writer.raw(b"true"),
                "false" => writer.raw(b"false"),
                other => writer.string(other),
            }
        }
        tag::SMALL_INTEGER | tag::INTEGER | tag::SMALL_BIG | tag::LARGE_BIG => {
            match reader.integer(tag, at)? {
                (false, value) if form.is_text(value) => {
                    writer.raw(b"\"")?;
                    writer.serialize(&value)?;
                    writer.raw(b"\"")
                }
                (false, value) => writer.serialize(&value),
                (true, value) => {
                    writer.raw(b"-")?;
                    writer.serialize(&value)
                }
            }
        }
        tag::NEW_FLOAT => {
            let value = f64::from_be_bytes(reader.array()?);
            if !value.is_finite() {
                return Err(EtfError::NotFinite { at });
            }
            writer.serialize(&value)
        }
        tag::NIL => writer.raw(b"[]"),
        // A packed list, not text: ETF packs any list of integers up to 255 like this (GW-038).
        tag::STRING => {
            let length = u16::from_be_bytes(reader.array()?);
            writer.serialize(reader.take(length.into())?)
        }
        tag::COMPRESSED => Err(EtfError::Compressed { at }),
        _ => Err(EtfError::UnsupportedTag { at, tag }),
    }
}

/// How the integers under a key are written in JSON; see [ids](super#ids).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Number,
    /// A string, unless the integer is too small to be an id.
    Id,
    /// A string if the integer is too large for a JSON number.
    IdOrNumber,
    /// Always a string.
    Text,
}

impl Form {
    pub(super) fn under(key: &str) -> Self {
        match key {
            "id" | "ids" | "roles" | "mention_roles" | "applied_tags" | "exempt_roles"
            | "exempt_channels" | "not_found" => Self::Id,
            // The options picked in a menu: only strings, some of them ids.
            "values" => Self::Id,
            // In `authorizing_integration_owners`, the key is the kind of owner and the value its id.
            "0" | "1" => Self::Id,
            "value" | "old_value" | "new_value" => Self::IdOrNumber,
            "permissions"
            | "app_permissions"
            | "default_member_permissions"
            | "allow"
            | "deny"
            | "flags_new" => Self::Text,
            _ if key.ends_with("_id") || key.ends_with("_ids") => Self::Id,
            _ => Self::Number,
        }
    }

    const fn is_text(self, value: u64) -> bool {
        match self {
            Self::Number => false,
            Self::Id => value >= 1 << 32,
            Self::IdOrNumber => value > 1 << 53,
            Self::Text => true,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], EtfError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(EtfError::Truncated { at: self.at() })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EtfError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(EtfError::Truncated { at: self.at() })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Reads a count of four bytes. A message cannot be longer than memory, so a clipped count is longer than
    /// the message too.
    fn count(&mut self) -> Result<usize, EtfError> {
        Ok(usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    fn key(&mut self) -> Result<Cow<'a, str>, EtfError> {
        let at = self.at();
        let [tag] = self.array()?;
        match tag {
            tag::BINARY | tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => {
                self.text(tag, at)
            }
            tag::SMALL_INTEGER | tag::INTEGER | tag::SMALL_BIG | tag::LARGE_BIG => {
                let (negative, value) = self.integer(tag, at)?;
                Ok(format!("{}{value}", if negative { "-" } else { "" }).into())
            }
            _ => Err(EtfError::UnsupportedKey { at, tag }),
        }
    }

    /// Reads a binary or an atom.
    fn text(&mut self, tag: u8, at: usize) -> Result<Cow<'a, str>, EtfError> {
        let length = match tag {
            tag::BINARY => self.count()?,
            tag::ATOM | tag::ATOM_UTF8 => u16::from_be_bytes(self.array()?).into(),
            _ => self.array::<1>()?[0].into(),
        };
        let bytes = self.take(length)?;
        if matches!(tag, tag::ATOM | tag::SMALL_ATOM) && !bytes.is_ascii() {
            // Latin-1: each byte is its code point.
            return Ok(bytes.iter().copied().map(char::from).collect());
        }
        std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| EtfError::NotUtf8 { at })
    }

    /// Reads an integer as its sign and absolute value. A negative one fits into `i64`, any other into `u64`.
    fn integer(&mut self, tag: u8, at: usize) -> Result<(bool, u64), EtfError> {
        let length = match tag {
            tag::SMALL_INTEGER => return Ok((false, self.array::<1>()?[0].into())),
            tag::INTEGER => {
                let value = i32::from_be_bytes(self.array()?);
                return Ok((value < 0, value.unsigned_abs().into()));
            }
            tag::SMALL_BIG => self.array::<1>()?[0].into(),
            _ => self.count()?,
        };
        let [sign] = self.array()?;
        let digits = self.take(length)?;
        let mut bytes = [0; 8];
        bytes.get_mut(..length).ok_or(EtfError::IntegerTooLarge { at })?.copy_from_slice(digits);
        let value = u64::from_le_bytes(bytes);
        let negative = sign != 0 && value != 0;
        if negative && value > i64::MIN.unsigned_abs() {
            return Err(EtfError::IntegerTooLarge { at });
        }
        Ok((negative, value))
    }
}

/// A buffer of JSON text with a size limit.
struct Writer<'a> {
    json: &'a mut Vec<u8>,
    limit: usize,
    end: usize,
}

impl Writer<'_> {
    fn raw(&mut self, text: &[u8]) -> Result<(), EtfError> {
        if text.len() > self.end - self.json.len() {
            return Err(EtfError::TooLarge { limit: self.limit });
        }
        self.json.extend_from_slice(text);
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), EtfError> {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        // The fast path: nearly every string needs no escapes.
        if text.bytes().all(plain) {
            self.raw(b"\"")?;
            self.raw(text.as_bytes())?;
            self.raw(b"\"")
        } else {
            self.serialize(text)
        }
    }

    fn serialize(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), EtfError> {
        let limit = self.limit;
        // Strings and finite numbers can always be encoded, so the limit was reached.
        serde_json::to_writer(self, value).map_err(|_| EtfError::TooLarge { limit })
    }

    /// Closes a list or map, and writes a comma after it.
    fn end(&mut self, bracket: u8) -> Result<(), EtfError> {
        // Only an empty list or map has no comma at its end.
        if self.json.last() == Some(&b',') {
            self.json.pop();
        }
        self.raw(&[bracket, b','])
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.raw(text).map(|()| text.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
