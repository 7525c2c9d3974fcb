//! The wire tap: shows what shards send and receive, for debugging.
//!
//! Input: each payload that a shard's driver reads or sends. Output: calls of the bot's function. Without a
//! tap, the driver only compares one pointer per payload.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use shardkeeper_proto::{Envelope, Opcode, Payload, ShardId};

/// The direction of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there is no third one")]
pub enum Direction {
    /// Sent by the shard to Discord.
    Sent,
    /// Received by the shard from Discord.
    Received,
}

/// One payload on the wire of a shard. `Debug` shows no content.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct WirePayload<'a> {
    /// The shard whose connection carries the payload.
    pub shard: ShardId,
    /// The direction of the payload.
    pub direction: Direction,
    /// The opcode; `None` when the payload cannot be read.
    pub opcode: Option<u64>,
    /// The event's name; `None` when the payload is not a dispatch.
    pub event: Option<&'a str>,
    /// The size in bytes, without compression and WebSocket frames.
    pub bytes: usize,
    data: Option<&'a [u8]>,
}

impl<'a> WirePayload<'a> {
    /// The JSON text of `d`, if the tap was created [with content](crate::Builder::wire_tap_with_content).
    /// The `d` of Identify and Resume is never shown, since it holds the token. The `d` of READY is shown,
    /// and holds the session's id.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.data
    }
}

impl fmt::Debug for WirePayload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WirePayload")
            .field("shard", &self.shard)
            .field("direction", &self.direction)
            .field("opcode", &self.opcode)
            .field("event", &self.event)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The bot's function, which runs in the task of a shard.
pub(crate) struct Tap {
    listener: Box<dyn Fn(&WirePayload<'_>) + Send + Sync>,
    with_content: bool,
    panicked: AtomicBool,
}

impl Tap {
    pub(crate) fn new(
        listener: impl Fn(&WirePayload<'_>) + Send + Sync + 'static,
        with_content: bool,
    ) -> Self {
        Self { listener: Box::new(listener), with_content, panicked: AtomicBool::new(false) }
    }

    pub(crate) fn received(&self, shard: ShardId, bytes: usize, envelope: Option<&Envelope<'_>>) {
        self.call(&WirePayload {
            shard,
            direction: Direction::Received,
            opcode: envelope.map(|envelope| envelope.op),
            event: envelope.and_then(|envelope| envelope.event.as_deref()),
            bytes,
            data: envelope.map(|envelope| envelope.data).filter(|_| self.with_content),
        });
    }

    pub(crate) fn sent(&self, shard: ShardId, payload: &Payload) {
        let secret = payload.is(Opcode::Identify) || payload.is(Opcode::Resume);
        let shown = self.with_content && !secret;
        let envelope = shown.then(|| Envelope::split(payload.text.as_bytes()).ok()).flatten();
        self.call(&WirePayload {
            shard,
            direction: Direction::Sent,
            opcode: Some(payload.opcode.into()),
            event: None,
            bytes: payload.text.len(),
            data: envelope.map(|envelope| envelope.data),
        });
    }

    /// Calls the bot's function, unless it has panicked before.
    fn call(&self, payload: &WirePayload<'_>) {
        if self.panicked.load(Ordering::Relaxed) {
            return;
        }
        if panic::catch_unwind(AssertUnwindSafe(|| (self.listener)(payload))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
            tracing::error!("the wire tap panicked and is not called again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use shardkeeper_proto::shard::{Context, Input, Output, Shard, ShardConfig};
    use shardkeeper_proto::{Intents, Session, ShardCount, Timings, Token, Wire};

    use super::*;

    /// The first payload that a shard with this session sends.
    fn first_payload(mut session: Session) -> Payload {
        let config = ShardConfig {
            token: Token::new("secret").unwrap(),
            shard: session.shard,
            count: session.count,
            intents: Intents::GUILDS,
            large_threshold: 50,
            library: "test".to_owned(),
            gateway_url: "wss://gateway.invalid".parse().unwrap(),
            wire: Wire::default(),
            timings: Timings::default(),
        };
        session.query = config.wire.query();
        let (mut shard, now) = (Shard::new(config, Some(session)), Instant::now());
        let hello = Envelope::split(br#"{"op":10,"d":{"heartbeat_interval":41250}}"#).unwrap();
        for input in [Input::Start, Input::Connected, Input::Payload(&hello)] {
            shard.handle_input(&mut Context::new(now, &mut || 0.5), input);
        }
        loop {
            match shard.poll_output() {
                Output::Send(payload) => return payload,
                Output::Timeout(_) => panic!("it sends nothing"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_resume_is_tapped_without_its_content() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let listener = move |payload: &WirePayload<'_>| {
            list.lock().unwrap().push((payload.opcode, payload.data().map(<[u8]>::to_vec)));
        };
        let resume = first_payload(Session::sample(ShardId(0), ShardCount::new(1).unwrap()));
        assert!(resume.text.contains("secret"));
        Tap::new(listener, true).sent(ShardId(0), &resume);
        assert_eq!(*seen.lock().unwrap(), [(Some(6), None)]);
    }
}
