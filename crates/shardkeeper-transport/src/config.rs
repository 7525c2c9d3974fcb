//! Bounds and choices of one connection.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Compression;

/// The longest content of a control frame (RFC 6455, 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// The smallest write buffer that still takes a pong or a close frame at any time.
const MIN_WRITE_BUFFER_BYTES: usize = 256;

/// The bounds and choices of a connection. Construct it with `Default`, then set fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// How the peer compresses; must agree with the `compress` parameter of the URL, and [`Compression::Payload`] with
    /// that of the Identify payload (GW-040). Default: [`Compression::None`], which is what a URL without that
    /// parameter means.
    pub compression: Compression,
    /// Bound of a whole connect: name, TCP, TLS and WebSocket handshake together. Default: 10 s, since a healthy
    /// connect takes well under one second and a lost SYN is repeated after 1, 3 and 7 s.
    pub connect_timeout: Duration,
    /// Bound, in bytes, of one frame, of one message, of the compressed input collected for one payload, and of one
    /// inflated payload (GW-014, GW-054). Default: 64 MiB; READY and GUILD_CREATE of large bots take several MiB.
    ///
    /// A frame's header alone makes the codec reserve the announced length, so this is also the bound of what a
    /// hostile peer can make the connection allocate (twice: once compressed, once inflated). With `zstd-stream` the
    /// window comes on top, see [`Compression`].
    pub max_message_bytes: usize,
    /// How many bytes one read asks for. Default: 4096. The buffer is zero-filled before every read: one small frame
    /// per wake-up was measured at 426 ns with 4 KiB, 481 ns with 16 KiB and 2,539 ns with 128 KiB, and the
    /// connection keeps one to four times this size in memory (4 to 17 KB with 4 KiB).
    pub read_buffer_bytes: usize,
    /// Bound of what is queued and not yet accepted by the socket; exceeding it ends the connection with
    /// [`TransportError::WriteBufferFull`](crate::TransportError::WriteBufferFull). Default: 512 KiB, a little more
    /// than the 120 commands of 4096 bytes that Discord accepts per minute, so a peer that reads at all never gets
    /// there. Allocated only as far as used. Values below 256 count as 256.
    pub max_write_buffer_bytes: usize,
    /// The `User-Agent` of the WebSocket request. Default: `None`, which sends no such header; some servers refuse that.
    pub user_agent: Option<String>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            connect_timeout: Duration::from_secs(10),
            max_message_bytes: 64 << 20,
            read_buffer_bytes: 4096,
            max_write_buffer_bytes: 512 << 10,
            user_agent: None,
        }
    }
}

impl TransportConfig {
    pub(crate) fn write_buffer_bytes(&self) -> usize {
        self.max_write_buffer_bytes.max(MIN_WRITE_BUFFER_BYTES)
    }

    pub(crate) fn websocket(&self) -> WebSocketConfig {
        let max_write = self.write_buffer_bytes();
        WebSocketConfig::default()
            .read_buffer_size(self.read_buffer_bytes)
            // Queueing never touches the socket: only a flush writes. The codec demands less than the maximum.
            .write_buffer_size(max_write - 1)
            .max_write_buffer_size(max_write)
            // Or a limit below 125 would refuse pings and close frames.
            .max_frame_size(Some(self.max_message_bytes.max(MAX_CONTROL_BYTES)))
            .max_message_size(Some(self.max_message_bytes))
    }
}
