//! Errors in one line, with their sources.

use std::error::Error;
use std::fmt::Write;

/// Implements `Debug` as the `Display` of an error and its sources, because `main` prints the error that it
/// returns by `Debug`.
macro_rules! readable {
    ($($error:ty),+ $(,)?) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::chain::chain(self))
            }
        })+
    };
}

pub(crate) use readable;

/// Text of an error and its sources, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
