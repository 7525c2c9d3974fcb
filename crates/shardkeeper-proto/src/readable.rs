//! `Debug` of an error prints its `Display` text, because that is what a user sees when `main` returns the
//! error.

macro_rules! readable {
    ($($error:ty),+ $(,)?) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        })+
    };
}

readable!(
    crate::CommandQueueError,
    crate::CommandContentError,
    crate::PresenceError,
    crate::PayloadSizeError,
    crate::SessionMismatch,
    crate::TokenError,
    crate::shard::FatalClose,
);

#[cfg(test)]
mod tests {
    #[test]
    fn errors_print_the_same_sentence_by_debug() {
        let error: Box<dyn std::error::Error> =
            crate::Token::new("").expect_err("an empty token is an error").into();
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
