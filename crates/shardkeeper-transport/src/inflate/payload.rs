//! Payload compression: each compressed message is a whole zlib stream of its own (GW-041, GW-042).

use flate2::Decompress;

use super::output::{End, Output};
use crate::InflateError;

/// The first byte of a zlib stream with the usual window of 32 KiB (RFC 1950, 2.2). Neither JSON nor ETF
/// starts with it.
const ZLIB_STREAM: u8 = 0x78;

pub(super) struct Payload {
    inflate: Decompress,
}

impl Payload {
    pub(super) fn new() -> Self {
        Self { inflate: Decompress::new(true) }
    }

    /// Inflates or copies this message into `output`.
    pub(super) fn push(&mut self, message: &[u8], output: &mut Output) -> Result<(), InflateError> {
        if message.first() != Some(&ZLIB_STREAM) {
            output.copy(message);
            return Ok(());
        }
        // Resetting is cheaper than a new context, which would allocate and free 48 KB for each message.
        self.inflate.reset(true);
        let end = output.fill(&mut self.inflate, message)?;
        let total_in = self.inflate.total_in();
        match end {
            End::Stream { unused: 0 } => Ok(()),
            End::Stream { .. } => Err(InflateError::Corrupt { total_in }),
            End::Input => Err(InflateError::Truncated { total_in }),
        }
    }
}
