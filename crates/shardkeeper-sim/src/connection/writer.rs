//! The sending half of a connection: control payloads first, then the dispatches of the session.

use std::time::Duration;

use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};

use super::feed::{next_dispatch, sent_close, sent_invalid};
use crate::discord::Discord;
use crate::link::{Link, Next, Out};
use crate::odd::Odd;
use crate::wire::{Encoder, Unwritable};

/// The sending half of a connection.
pub(super) struct Writer<'a, S> {
    pub(super) discord: &'a Discord,
    pub(super) link: &'a Link,
    pub(super) sink: SplitSink<WebSocketStream<S>, Message>,
    pub(super) encoder: Encoder,
    pub(super) odd: Option<Odd>,
    /// How many payloads were written with an [`Odd`].
    pub(super) written: u64,
}

/// The connection accepts no more data.
struct Gone;

impl From<Unwritable> for Gone {
    fn from(_: Unwritable) -> Self {
        Self
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<'_, S> {
    /// Writes until the connection is to end. Returns whether it is to end at once, without a closing
    /// handshake.
    pub(super) async fn run(&mut self) -> bool {
        let mut drained = false;
        loop {
            let sent = match self.link.next(drained) {
                Next::Cut => return true,
                Next::Wait => {
                    self.link.woken().await;
                    drained = false;
                    continue;
                }
                Next::Control(Out::Text(payload)) => self.payload(payload.as_bytes()).await,
                Next::Control(Out::InvalidSession { session, resumable }) => {
                    let invalid = format!(r#"{{"t":null,"s":null,"op":9,"d":{resumable}}}"#);
                    // The client may log in again on this connection (GW-150). Op 9 for a refused login has
                    // no session: there the connection is logged out anyway, and the next login may have
                    // arrived already.
                    if session.is_some() {
                        self.link.log_out();
                    }
                    // Taken before writing, since the client may answer before this task continues.
                    let at = self.discord.state().now();
                    let sent = self.payload(invalid.as_bytes()).await;
                    // A client that is gone does not know that its session is over.
                    if let Some(session) = session.filter(|_| sent.is_ok()) {
                        sent_invalid(self.discord, &session, resumable, at);
                    }
                    sent
                }
                Next::Control(Out::Corrupt) => self.garbage().await,
                Next::Control(Out::Truncate) => {
                    let _ = self.truncated().await;
                    return true;
                }
                Next::Control(Out::Close { code, reason }) => {
                    self.link.closing();
                    let at = self.discord.state().now();
                    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
                    if self.sink.send(Message::Close(Some(frame))).await.is_ok() {
                        sent_close(self.discord, self.link, code, at);
                    }
                    return false;
                }
                Next::Dispatches(feed) => match next_dispatch(self.discord, &feed, self.link) {
                    Ok(Some(payload)) if self.odd.is_some_and(|odd| odd.in_one() > 1) => {
                        self.several(payload.to_vec()).await
                    }
                    Ok(Some(payload)) => self.payload(&payload).await,
                    Ok(None) => {
                        drained = true;
                        continue;
                    }
                    Err(_) => return true,
                },
            };
            drained = false;
            if sent.is_err() {
                // The reader notices the end of the connection, and the client's close code if there is one.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends a dispatch and those after it in one message.
    async fn several(&mut self, mut payloads: Vec<u8>) -> Result<(), Gone> {
        for _ in 1..self.odd.map_or(1, Odd::in_one) {
            let feed = self.link.feed_now();
            match feed.and_then(|feed| next_dispatch(self.discord, &feed, self.link).ok()?) {
                Some(payload) => payloads.extend_from_slice(&payload),
                None => break,
            }
        }
        self.payload(&payloads).await
    }

    async fn payload(&mut self, payload: &[u8]) -> Result<(), Gone> {
        let Some(odd) = self.odd else { return self.usual(payload).await };
        for stranger in odd.strangers() {
            self.usual(stranger.as_bytes()).await?;
        }
        let payload = &*odd.rewrite(payload);
        self.written += 1;
        match odd {
            Odd::TextFrames => self.send(text_frame(payload)).await,
            Odd::SomeTextFrames if self.written.is_multiple_of(2) => self.send(text_frame(payload)).await,
            Odd::BinaryFrames => {
                let message = Message::binary(self.encoder.encoded(payload)?.into_owned());
                self.send(message).await
            }
            _ => self.usual(payload).await,
        }
    }

    async fn usual(&mut self, payload: &[u8]) -> Result<(), Gone> {
        let packed = self.link.is_packed();
        let messages =
            self.encoder.messages(payload, packed, |length, suffix| cuts(self.discord, length, suffix))?;
        for message in messages {
            let bytes = message.len();
            self.send(message).await?;
            if let Some(pace) = self.link.pace() {
                let wait = Duration::from_secs_f64(bytes as f64 / f64::from(pace));
                tokio::time::sleep(wait).await;
            }
        }
        Ok(())
    }

    /// Sends garbage several times, so that even a client that skips an unreadable message gives up.
    async fn garbage(&mut self) -> Result<(), Gone> {
        for _ in 0..8 {
            self.send(self.encoder.garbage()).await?;
        }
        Ok(())
    }

    async fn truncated(&mut self) -> Result<(), Gone> {
        let message = self.encoder.truncated(br#"{"t":"TYPING_START","s":1,"op":0,"d":{"guild_id":"1"}}"#)?;
        self.send(message).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        self.sink.send(message).await.map_err(|_| Gone)
    }
}

/// Where to cut a payload of this length into pieces; empty for most payloads. The last `suffix` bytes stay
/// together unless [`SimConfig::split_suffix`](crate::SimConfig::split_suffix) is on.
fn cuts(discord: &Discord, length: usize, suffix: usize) -> Vec<usize> {
    let (split, suffix_too) = (discord.config.split_frames, discord.config.split_suffix);
    let end = if suffix_too { length } else { length.saturating_sub(suffix) };
    if !(split || suffix_too) || end < 3 {
        return Vec::new();
    }
    let random = &mut discord.state().random;
    if random.u32(0..3) > 0 {
        return Vec::new();
    }
    let last = if suffix_too { length - random.usize(1..length.min(4)) } else { random.usize(1..=end) };
    let mut cuts = vec![random.usize(1..end), last.min(length - 1)];
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

fn text_frame(payload: &[u8]) -> Message {
    // Payloads are JSON text, so nothing is lost.
    Message::text(String::from_utf8_lossy(payload).into_owned())
}
