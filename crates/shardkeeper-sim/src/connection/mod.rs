//! One Gateway connection, from Hello to its end.
//!
//! Reading and writing go on side by side: a client that takes nothing is still heard.

mod heartbeats;
mod reader;
mod writer;

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use self::reader::Reader;
use self::writer::Writer;
use crate::discord::Discord;
use crate::fault::ConnectFault;
use crate::hosts::Host;
use crate::memory::Arrival;
use crate::odd::Odd;
use crate::wire::{Encoder, Query};

/// The largest message that is read. Discord refuses payloads of more than 4096 bytes with 4002; up to this size the
/// payload is read and blamed so, and beyond it the WebSocket closes with 1009. An unfinished message holds no more.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// What an idle connection reads into; the WebSocket library's default would be 128 KiB for each one.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What was asked for by the request.
pub(crate) struct Opening {
    pub(crate) query: Query,
    pub(crate) host: Host,
    pub(crate) fault: Option<ConnectFault>,
    pub(crate) arrival: Arrival,
}

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
                // The client's answer to our close frame is waited for, or its last words would be lost.
                let _ = timeout(discord.config.timings.close_grace, reader.run()).await;
            }
            cut
        }
    };
    link.leave();
    let close = if cut { None } else { reader.client_close() };
    discord.disconnected(reader.session(), &link, close);
}
