//! Discord's Erlang External Term Format (`encoding=etf`), turned into JSON text at the edge and back.
//!
//! Input: one whole message, inflated. Output: the JSON text that the rest of the crate works on, so that the machine
//! and the subscribers see events in one form whatever the encoding is. Nothing here builds a tree.
//!
//! # Ids
//!
//! Discord sends ids as strings in JSON and as 64-bit integers or strings in ETF (GW-032). A subscriber must not
//! notice the encoding, so [`to_json`] writes integers as strings where JSON has strings. The value alone does not
//! tell: times in milliseconds (`start`, `end`, `created_at`) pass 32 bits too, and are numbers in JSON. So the key
//! decides, for the integer under it and for those in a list under it:
//!
//! | key | written as a string |
//! |---|---|
//! | `id`, `ids`, `…_id`, `…_ids`, and the other keys that hold ids, as `roles` or `not_found` | from 2³² |
//! | `permissions`, `allow`, `deny` and other sets of 64 bits | always |
//! | `value`, `old_value`, `new_value` | above 2⁵³ |
//! | any other | never |
//!
//! Every id of Discord is larger than 2³², being 22 bits below the milliseconds since 2015; something smaller under
//! the key of an id is none, and is an integer in JSON too (GW-025). The third line is for options of commands and
//! changes in the audit log, where the key does not tell an id from a number: Discord's numbers end at 2⁵³ there, and
//! ids passed that in January 2015.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{MAX_DEPTH, first_to_json, to_json};
pub use encode::from_json;

/// The first byte of each message (GW-035). JSON never begins with it.
pub const VERSION: u8 = 131;

/// The tags of the terms that Discord sends (GW-036 to GW-039).
mod tag {
    pub(super) const NEW_FLOAT: u8 = 70;
    pub(super) const COMPRESSED: u8 = 80;
    pub(super) const SMALL_INTEGER: u8 = 97;
    pub(super) const INTEGER: u8 = 98;
    pub(super) const ATOM: u8 = 100;
    pub(super) const SMALL_TUPLE: u8 = 104;
    pub(super) const LARGE_TUPLE: u8 = 105;
    pub(super) const NIL: u8 = 106;
    pub(super) const STRING: u8 = 107;
    pub(super) const LIST: u8 = 108;
    pub(super) const BINARY: u8 = 109;
    pub(super) const SMALL_BIG: u8 = 110;
    pub(super) const LARGE_BIG: u8 = 111;
    pub(super) const SMALL_ATOM: u8 = 115;
    pub(super) const MAP: u8 = 116;
    pub(super) const ATOM_UTF8: u8 = 118;
    pub(super) const SMALL_ATOM_UTF8: u8 = 119;
}

/// A message is no term that JSON can express. Offsets count from the version byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EtfError {
    /// The first byte is not 131.
    #[error("the message does not begin with the version byte 131")]
    NoVersion,
    /// The message ends inside a term.
    #[error("the message ends inside the term at byte {at}")]
    Truncated {
        /// Where the part begins that is not all there.
        at: usize,
    },
    /// Something stands behind the term.
    #[error("the term ends at byte {at}, before the message does")]
    TrailingBytes {
        /// Where the term ends.
        at: usize,
    },
    /// A kind of term that has no counterpart in JSON, or that Erlang stopped writing (FLOAT, 99).
    #[error("byte {at} holds tag {tag}, which is not supported")]
    UnsupportedTag {
        /// Where it stands.
        at: usize,
        /// The tag.
        tag: u8,
    },
    /// A compressed term. The server never sends one: compression belongs to the transport (GW-034).
    #[error("the term at byte {at} is compressed, which is not supported")]
    Compressed {
        /// Where it stands.
        at: usize,
    },
    /// Terms are nested deeper than [`MAX_DEPTH`].
    #[error("the term at byte {at} is nested too deeply")]
    TooDeep {
        /// Where the first one too deep stands.
        at: usize,
    },
    /// The JSON text is larger than allowed.
    #[error("as JSON the message is larger than {limit} bytes")]
    TooLarge {
        /// The bound, as given to [`to_json`].
        limit: usize,
    },
    /// An integer that fits into neither `u64` nor `i64`.
    #[error("the integer at byte {at} has more than 64 bits")]
    IntegerTooLarge {
        /// Where it stands.
        at: usize,
    },
    /// A float that is infinite or not a number.
    #[error("the float at byte {at} is not finite")]
    NotFinite {
        /// Where it stands.
        at: usize,
    },
    /// A binary or atom that is not UTF-8.
    #[error("the text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Where it stands.
        at: usize,
    },
    /// A list that does not end with the empty list.
    #[error("the list that ends at byte {at} is improper")]
    ImproperList {
        /// Where its tail stands.
        at: usize,
    },
    /// The key of a map is neither text nor an integer.
    #[error("the key at byte {at} has tag {tag}, which is neither text nor an integer")]
    UnsupportedKey {
        /// Where it stands.
        at: usize,
        /// Its tag.
        tag: u8,
    },
}
