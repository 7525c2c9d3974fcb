//! What a client may use: the token and the privileged intents.

use std::collections::BTreeSet;

use crate::intents;

/// How many rejected authorizations are remembered, so that the reuse of one is noticed.
const MAX_REJECTED: usize = 1_000;

/// The bot's token, and the intents that are enabled for it.
pub(crate) struct Access {
    token: String,
    /// Whether Discord has reset the token, after an Identify beyond the limit of the day (GW-166).
    reset: bool,
    allowed_intents: u64,
    /// Authorizations that were answered with 401 (GW-297: a client must not use them again).
    rejected: BTreeSet<Vec<u8>>,
}

impl Access {
    pub(super) fn new(token: String, allowed_intents: u64) -> Self {
        Self { token, reset: false, allowed_intents, rejected: BTreeSet::new() }
    }

    /// Whether a token of the Gateway is valid, with or without the prefix of REST.
    pub(crate) fn accepts_token(&self, token: &str) -> bool {
        !self.reset && token.strip_prefix("Bot ").unwrap_or(token) == self.token
    }

    /// Whether the header `Authorization` of a REST request is valid.
    pub(crate) fn accepts_header(&self, header: &[u8]) -> bool {
        !self.reset && header.strip_prefix(b"Bot ") == Some(self.token.as_bytes())
    }

    /// Remembers an invalid authorization. Returns whether it was rejected before.
    pub(crate) fn reject_header(&mut self, header: &[u8]) -> bool {
        if header.is_empty() {
            return false;
        }
        if self.rejected.contains(header) {
            return true;
        }
        if self.rejected.len() < MAX_REJECTED {
            self.rejected.insert(header.to_vec());
        }
        false
    }

    /// Makes the token invalid for the rest of the simulator's life.
    pub(crate) fn reset_token(&mut self) {
        self.reset = true;
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.reset
    }

    pub(crate) fn allowed_intents(&self) -> u64 {
        self.allowed_intents
    }

    /// Changes the enabled intents. Returns the privileged ones that were withdrawn.
    pub(crate) fn allow_intents(&mut self, intents: u64) -> u64 {
        std::mem::replace(&mut self.allowed_intents, intents) & !intents & intents::PRIVILEGED
    }
}
