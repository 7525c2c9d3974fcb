//! One Gateway connection, from Hello to its end.
//!
//! Reading and writing are concurrent, so that a client that reads nothing is still read.

mod feed;
mod heartbeats;
mod opening;
mod reader;
mod writer;

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub(crate) use self::opening::Opening;
use self::reader::Reader;
use self::writer::Writer;
use crate::discord::Discord;
use crate::fault::ConnectFault;
use crate::odd::Odd;
use crate::wire::Encoder;

/// The largest message that is read, and so the most memory of an unfinished one. Discord refuses payloads of
/// more than 4096 bytes with 4002. The simulator does the same up to this size, and closes with 1009 beyond
/// it.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// The size of the read buffer of each connection. The default of the WebSocket library is 128 KiB.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Serves a connection until its end.
pub(crate) async fn serve<S>(stream: S, opening: Opening, discord: Arc<Discord>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits)).await;
    let (sink, stream) = socket.split();
    let link = discord.new_link();
    let odd = match opening.fault {
        Some(ConnectFault::Odd(odd)) => Some(odd),
        _ => None,
    };
    let encoder = Encoder::new(opening.query.mode, discord.config.atoms(), odd == Some(Odd::FramePerMessage));
    let mut writer = Writer { discord: &discord, link: &link, sink, encoder, odd, written: 0 };
    let mut reader = Reader::new(&discord, &link, stream, opening);
    reader.greet();
    let cut = tokio::select! {
        biased;
        () = reader.run() => false,
        cut = writer.run() => {
            if !cut {
                // Wait for the client's answer to our close frame, or payloads on the way would be lost.
                let _ = timeout(discord.config.timings.close_grace, reader.run()).await;
            }
            cut
        }
    };
    link.leave();
    let close = if cut { None } else { reader.client_close() };
    reader.leave_session(close);
}
