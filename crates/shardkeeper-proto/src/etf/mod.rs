//! Discord's Erlang External Term Format (`encoding=etf`), converted to JSON text on receiving and from it on
//! sending.
//!
//! Input: one whole inflated message. Output: the JSON text that the rest of the crate works on, so that the
//! state machine and the subscribers see events in one form with any encoding. No tree of values is built.
//!
//! # Ids
//!
//! Discord sends ids as strings in JSON, and as 64-bit integers or strings in ETF (GW-032). Subscribers must
//! not depend on the encoding, so [`to_json`] writes integers as strings where JSON has strings. The value
//! alone does not determine this: times in milliseconds (`start`, `end`, `created_at`) also exceed 32 bits,
//! and are numbers in JSON. So the key decides, for an integer under it and for those in a list under it:
//!
//! | key | written as a string |
//! |---|---|
//! | `id`, `ids`, `…_id`, `…_ids`, and the other keys that hold ids, such as `roles` or `not_found` | from 2³² |
//! | `permissions`, `allow`, `deny` and other sets of 64 bits | always |
//! | `value`, `old_value`, `new_value` | above 2⁵³ |
//! | any other | never |
//!
//! Every id of Discord is larger than 2³², because its upper bits are the milliseconds since 2015, shifted by
//! 22. A smaller integer under such a key is not an id, and is an integer in JSON too (GW-025). The third
//! line is for options of commands and changes in the audit log, where the key does not distinguish ids from
//! numbers: Discord's numbers end at 2⁵³ there, and ids passed that in January 2015.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{MAX_DEPTH, first_to_json, to_json};
pub use encode::from_json;

/// The first byte of each message (GW-035). JSON never begins with this byte.
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

/// Why a message cannot be converted to JSON. Offsets count from the version byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EtfError {
    /// The first byte is not 131.
    #[error("the message does not begin with the version byte 131")]
    NoVersion,
    /// The message ends inside a term.
    #[error("the message ends inside the term at byte {at}")]
    Truncated {
        /// The offset of the incomplete part.
        at: usize,
    },
    /// The message continues after the term.
    #[error("the term ends at byte {at}, before the message does")]
    TrailingBytes {
        /// The offset of the term's end.
        at: usize,
    },
    /// A kind of term that JSON has no counterpart for, or that Erlang no longer writes (FLOAT, 99).
    #[error("byte {at} holds tag {tag}, which is not supported")]
    UnsupportedTag {
        /// The offset of the tag.
        at: usize,
        /// The unsupported tag.
        tag: u8,
    },
    /// A compressed term. Discord never sends one: compression belongs to the transport (GW-034).
    #[error("the term at byte {at} is compressed, which is not supported")]
    Compressed {
        /// The offset of the term.
        at: usize,
    },
    /// Terms are nested deeper than [`MAX_DEPTH`].
    #[error("the term at byte {at} is nested too deeply")]
    TooDeep {
        /// The offset of the first term that is too deep.
        at: usize,
    },
    /// The JSON text exceeds the limit.
    #[error("as JSON the message is larger than {limit} bytes")]
    TooLarge {
        /// The limit given to [`to_json`], in bytes.
        limit: usize,
    },
    /// An integer that fits into neither `u64` nor `i64`.
    #[error("the integer at byte {at} has more than 64 bits")]
    IntegerTooLarge {
        /// The offset of the integer.
        at: usize,
    },
    /// A float that is infinite or not a number.
    #[error("the float at byte {at} is not finite")]
    NotFinite {
        /// The offset of the float.
        at: usize,
    },
    /// A binary or atom that is not UTF-8.
    #[error("the text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// The offset of the text.
        at: usize,
    },
    /// A list that does not end with the empty list.
    #[error("the list that ends at byte {at} is improper")]
    ImproperList {
        /// The offset of the list's tail.
        at: usize,
    },
    /// A map key that is neither text nor an integer.
    #[error("the key at byte {at} has tag {tag}, which is neither text nor an integer")]
    UnsupportedKey {
        /// The offset of the key.
        at: usize,
        /// The tag of the key.
        tag: u8,
    },
}
