//! Converts payloads to and from their form on the wire. All other code uses JSON text.

use shardkeeper_proto::{Encoding, Envelope, MalformedPayload, Payload};
use shardkeeper_transport::{Connection, TransportError};

/// The size in bytes from which the buffer of a payload's text is not reused for the next one.
const LARGE_BYTES: usize = 64 << 10;

pub(super) struct Codec {
    encoding: Encoding,
    /// The maximum size of a payload's text, in bytes.
    #[cfg_attr(not(feature = "etf"), expect(dead_code, reason = "JSON stays as long as it came"))]
    limit: usize,
    /// The text of the last payload, if it had to be converted.
    text: Vec<u8>,
}

/// A payload that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Json(#[from] MalformedPayload),
    #[cfg(feature = "etf")]
    #[error(transparent)]
    Etf(#[from] shardkeeper_proto::etf::EtfError),
}

impl Codec {
    pub(super) fn new(encoding: Encoding, limit: usize) -> Self {
        Self { encoding, limit, text: Vec::new() }
    }

    /// Splits off the first payload of a message, and returns the rest of the message. JSON is accepted in
    /// either encoding, since the first byte of a payload shows which it is.
    pub(super) fn split<'a, 'm: 'a>(
        &'a mut self,
        message: &'m [u8],
    ) -> Result<(Envelope<'a>, &'m [u8]), Unreadable> {
        if self.text.capacity() > LARGE_BYTES {
            self.text = Vec::new();
        }
        Ok(match self.encoding {
            #[cfg(feature = "etf")]
            Encoding::Etf if message.first() == Some(&shardkeeper_proto::etf::VERSION) => {
                let rest = shardkeeper_proto::etf::first_to_json(message, self.limit, &mut self.text)?;
                (Envelope::split(&self.text)?, rest)
            }
            _ => Envelope::split_first(message)?,
        })
    }

    /// Queues a payload for sending.
    pub(super) fn enqueue(
        &self,
        payload: Payload,
        connection: &mut Connection,
    ) -> Result<(), TransportError> {
        match self.encoding {
            #[cfg(feature = "etf")]
            Encoding::Etf => {
                let term = shardkeeper_proto::etf::from_json(&payload.text);
                connection.enqueue_binary(term.expect("our own JSON is valid, and not deep"))
            }
            _ => connection.enqueue(payload.text),
        }
    }
}
