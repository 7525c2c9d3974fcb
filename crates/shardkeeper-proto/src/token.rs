//! The bot's token, which must not appear in logs.

use std::fmt;
use std::sync::Arc;

/// A bot token. There is no `Display` and no `Serialize`, and `Debug` hides the text. Clones share one
/// buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// Why a text is not a bot token.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing is left after trimming white space.
    #[error("the token is empty: set it to the bot token from the developer portal")]
    Empty,
    /// A space or control character, at this byte offset; tokens contain none.
    #[error("the token has a space or control character at byte {0}: copy it again without line breaks")]
    BadCharacter(usize),
    /// The text is longer than 512 bytes, so it would not fit into an Identify of at most 4096 bytes
    /// (GW-026).
    #[error(
        "the token has {0} bytes, above the limit of {MAX_TOKEN_BYTES}: copy it from the developer portal"
    )]
    TooLong(usize),
}

/// The longest accepted token. Bot tokens have about 70 bytes; beside a presence of the largest size, an
/// Identify has room for this many.
const MAX_TOKEN_BYTES: usize = 512;

impl Token {
    /// Creates a token. Surrounding white space and a leading `Bot ` are removed: the Gateway expects the
    /// bare token, and a prefixed one in Resume invalidates the session (GW-070).
    ///
    /// # Errors
    ///
    /// When the text is empty, longer than 512 bytes, or contains characters that are not allowed in an HTTP
    /// header.
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

    /// The bare token. Use it only to send it.
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
