//! WebSocket, TLS and transport compression for Gateway connections: bytes in, messages out.
//!
//! ```text
//! Dialer ──▶ byte stream ──▶ WebSocket handshake ──▶ Connection ──▶ Event::{Message, Flushed, Closed}
//! (TCP, TLS)                 └── Connector, bounded in time ──┘      ▲
//!                                                                    └── enqueue, enqueue_close
//! ```
//!
//! Guarantees:
//!
//! - **A full write never delays anything else.** [`Connection::enqueue`] copies into a bounded buffer and
//!   returns; the buffer is written while the connection is polled, and reading continues when the peer does
//!   not read.
//! - **Everything has a bound**: a frame, a message, one inflated payload, a decompressor's memory, the write
//!   buffer, the time to connect.
//! - **Dropping a [`Connection`] sends nothing to the peer.** A close frame is sent only when
//!   [`Connection::enqueue_close`] asked for one, so the session stays resumable (GW-099, GW-100: only close
//!   codes 1000 and 1001 end it).
//! - **Errors hold no content**: neither `Display` nor `Debug` of an error shows a payload, or a URL's path
//!   or query.
//!
//! Both transport compressions of the Gateway and its payload compression are supported, see [`Compression`].
//! `zstd-stream` needs the cargo feature `zstd`, which is off by default because it adds a C library and
//! needs a C compiler to build.
//!
//! This crate does not interpret opcodes, keeps no session and never reconnects. It does not install a log
//! subscriber.
//!
//! `tungstenite` logs whole frames through `log` at level trace: the bot's token, session ids and the content
//! of events. The cargo feature `hide-frames`, on by default, compiles `log` records of that level out of the
//! whole program. If you turn it off, exclude the target `tungstenite` from the log yourself.
//!
//! ```no_run
//! use shardkeeper_transport::{Compression, Connector, Event, Reading, TcpDialer, TransportConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = TransportConfig::default();
//! config.compression = Compression::ZlibStream;
//! let connector = Connector::new(TcpDialer::new(), config);
//! let url = "wss://gateway.discord.gg/?v=10&encoding=json&compress=zlib-stream".parse()?;
//! let mut connection = connector.connect(&url).await?;
//! loop {
//!     match connection.next(Reading::On).await {
//!         Event::Message(payload) => println!("{} bytes", payload.len()),
//!         Event::Flushed => {}
//!         Event::Closed(closed) => {
//!             println!("closed by {:?}, code {:?}", closed.by, closed.code);
//!             break;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod compression;
mod config;
mod connect;
mod connection;
mod dial;
mod error;
mod frames;
mod inflate;
mod readable;
mod resolve;
mod tls;
mod upgrade;

pub use compression::Compression;
pub use config::TransportConfig;
pub use connect::Connector;
pub use connection::{Closed, Connection, Event, Initiator, Reading, Traffic};
pub use dial::{BoxedIo, Dialer, Io, TcpDialer};
pub use error::{ConnectError, HandshakeError, InflateError, PeerMisbehaved, Phase, TransportError};
pub use inflate::Inflater;
pub use tls::{CertificateError, client_config, client_config_trusting};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
