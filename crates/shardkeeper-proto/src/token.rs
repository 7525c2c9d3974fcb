//! The bot's token: kept, sent, never shown.

use std::fmt;
use std::sync::Arc;

/// A bot token. It has no `Display` and no `Serialize`, and its `Debug` hides it; clones share one buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// The text is no bot token.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing is left after trimming.
    #[error("the token is empty: set it to the bot token of the developer portal")]
    Empty,
    /// A character that no token has, at this byte offset.
    #[error("the token has a space or control character at byte {0}: copy it again without line breaks")]
    BadCharacter(usize),
    /// It leaves no room in an Identify, which has at most 4096 bytes (GW-026).
    #[error("the token has {0} bytes, which is no bot token: at most {MAX_TOKEN_BYTES} are possible")]
    TooLong(usize),
}

/// Bot tokens have about 70 bytes; with a presence of the largest size an Identify has room for this many.
const MAX_TOKEN_BYTES: usize = 512;

impl Token {
    /// Takes a token, without surrounding white space and without a leading `Bot `: the Gateway wants it bare,
    /// and a prefixed one in Resume invalidates the session (GW-070).
    ///
    /// # Errors
    ///
    /// When it is empty, longer than 512 bytes, or holds something that cannot stand in an HTTP header.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        let token = token.strip_prefix("Bot ").unwrap_or(token).trim_start();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(token.len()));
        }
        match token.bytes().position(|byte| !byte.is_ascii_graphic()) {
            Some(at) => Err(TokenError::BadCharacter(at)),
            None => Ok(Self(token.into())),
        }
    }

    /// The bare token, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_070_the_prefix_is_removed_and_nothing_is_printed() {
        let token = Token::new(" Bot abc.def\n").unwrap();
        assert_eq!(token.expose(), "abc.def");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn bad_tokens_are_refused() {
        assert_eq!(Token::new("  "), Err(TokenError::Empty));
        assert_eq!(Token::new("ab\ncd"), Err(TokenError::BadCharacter(2)));
        assert_eq!(Token::new(&"a".repeat(513)), Err(TokenError::TooLong(513)));
    }
}
