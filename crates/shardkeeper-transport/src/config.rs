//! Limits and options of one connection.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Compression;

/// The longest content of a control frame (RFC 6455, 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// The smallest write buffer that still takes a pong or a close frame at any time.
const MIN_WRITE_BUFFER_BYTES: usize = 256;

/// The limits and options of a connection. Start from `Default`, then set fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// How the peer compresses. Must match the `compress` parameter of the URL or, for
    /// [`Compression::Payload`], the `compress` field of Identify (GW-040: the two are alternatives).
    /// Default: [`Compression::None`], the meaning of a URL without that parameter.
    pub compression: Compression,
    /// The time limit for a whole connect: DNS, TCP, TLS and WebSocket handshake together. Default: 10 s. A
    /// healthy connect takes well under one second, and a lost SYN is repeated after 1, 3 and 7 s.
    pub connect_timeout: Duration,
    /// The limit, in bytes, of one frame, of one message, of the compressed input collected for one payload,
    /// and of one inflated payload (GW-014: incoming messages have no small limit; GW-054: inflated size must
    /// be bounded). Default: 64 MiB; READY and GUILD_CREATE of large bots take several MiB.
    ///
    /// The codec reserves the length that a frame's header announces, so this limit also bounds what a
    /// hostile peer can make the connection allocate: twice this size, once compressed and once inflated.
    /// `zstd-stream` adds its window, see [`Compression`].
    pub max_message_bytes: usize,
    /// How many bytes one read asks for. Default: 4096. The buffer is filled with zeros before every read, so
    /// larger is slower: one small frame per wake-up took 426 ns with 4 KiB, 481 ns with 16 KiB and 2,539 ns
    /// with 128 KiB. The connection keeps one to four times this size in memory (4 to 17 KB with 4 KiB).
    pub read_buffer_bytes: usize,
    /// The limit, in bytes, of what is queued and not yet accepted by the socket. Exceeding it ends the
    /// connection with [`TransportError::WriteBufferFull`](crate::TransportError::WriteBufferFull). Default:
    /// 512 KiB, a little more than the 120 commands of 4096 bytes that Discord accepts per minute, so a peer
    /// that reads at all never reaches it. Memory is allocated only as needed. Values below 256 count as 256.
    pub max_write_buffer_bytes: usize,
    /// The `User-Agent` of the WebSocket request. Default: `None`, which sends no such header; some servers
    /// reject requests without it.
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
            // Queueing never touches the socket; only a flush writes. The codec requires a value below the
            // maximum.
            .write_buffer_size(max_write - 1)
            .max_write_buffer_size(max_write)
            // With a limit below 125, the codec would reject pings and close frames.
            .max_frame_size(Some(self.max_message_bytes.max(MAX_CONTROL_BYTES)))
            .max_message_size(Some(self.max_message_bytes))
    }
}
