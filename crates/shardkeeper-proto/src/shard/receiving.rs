//! Payloads from Discord, and their effect on the shard.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::heartbeat::Heartbeat;
use super::{Change, Context, MALFORMED_LIMIT, Oddity, Output, Reason, Shard, State};
use crate::close::{CloseCode, Scope};
use crate::session::usable_resume_url;
use crate::{Envelope, EventName, IdentifyPermit, Opcode, Session, payload};

/// The number of READYs of another shard in a row after which the shard is refused.
const OTHER_SHARD_LIMIT: u32 = 2;

/// A number, written as a number or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl Number {
    fn value(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl Shard {
    pub(super) fn payload(&mut self, cx: &mut Context<'_>, envelope: &Envelope<'_>) {
        if !self.is_connected() {
            return;
        }
        // While the connection is being closed, only payloads that belong to the session still count.
        let open = self.is_open();
        match envelope.opcode() {
            Some(Opcode::Dispatch) => self.dispatch(cx, envelope),
            Some(Opcode::HeartbeatAck) if open => {
                let beat_at = self.heartbeat.as_mut().and_then(|heartbeat| heartbeat.acknowledged(cx.now));
                let probed = self.heartbeat.as_mut().and_then(Heartbeat::take_probed);
                self.outputs.extend(probed.map(Output::Probed));
                // Payloads arrive in order, so everything sent before this heartbeat has arrived.
                if self.presence_unproven.is_some_and(|sent_at| beat_at.is_some_and(|at| at > sent_at)) {
                    self.presence_unproven = None;
                }
            }
            Some(Opcode::Heartbeat) if open => {
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.requested = true;
                    self.flush(cx.now);
                }
            }
            Some(Opcode::Hello) if open => self.hello(cx, envelope.data),
            Some(Opcode::Reconnect) if open => self.end_connection(cx, Reason::ReconnectRequested),
            Some(Opcode::InvalidSession) => {
                let resumable = envelope.data == b"true";
                if open {
                    self.end_connection(cx, Reason::InvalidSession { resumable });
                } else {
                    self.invalidated_while_closing(cx, resumable);
                }
            }
            // Opcodes that only clients send, and unknown ones, are ignored (GW-021).
            _ => {}
        }
    }

    pub(super) fn malformed(&mut self, cx: &mut Context<'_>) {
        self.malformed += 1;
        if self.malformed >= MALFORMED_LIMIT && self.is_open() {
            self.unreadable(cx, "too many payloads in a row that are malformed");
        }
    }

    pub(super) fn unreadable(&mut self, cx: &mut Context<'_>, detail: &'static str) {
        self.detail = Some(detail.into());
        self.end_connection(cx, Reason::Unreadable);
    }

    fn odd(&mut self, oddity: Oddity) {
        if !self.odd.contains(&oddity) {
            self.odd.push(oddity);
            self.outputs.push_back(Output::Odd(oddity));
        }
    }

    pub(super) fn hello(&mut self, cx: &mut Context<'_>, data: &[u8]) {
        #[derive(Deserialize)]
        struct Hello {
            heartbeat_interval: Number,
        }
        let State::AwaitingHello { .. } = self.state else { return };
        let interval = serde_json::from_slice::<Hello>(data)
            .ok()
            .and_then(|hello| hello.heartbeat_interval.value())
            // From one heartbeat per millisecond to one per day; anything else is not a usable interval.
            .filter(|interval| (1.0..=86_400_000.0).contains(interval));
        let Some(heartbeat_interval) = interval else {
            return self.unreadable(cx, "hello has no heartbeat interval between 1 ms and a day");
        };
        let interval = Duration::from_secs_f64(heartbeat_interval / 1000.0);
        self.limiter.reserve_heartbeats(interval);
        let mut heartbeat = Heartbeat::new(cx.now, interval, cx.random());
        heartbeat.set_paused(cx.now, self.paused_since.is_some());
        self.heartbeat = Some(heartbeat);
        self.changed(Change::Hello { heartbeat_interval: interval });
        match &self.session {
            Some(session) => {
                let payload = payload::resume(&self.config.token, session);
                let sequence = session.sequence;
                let timings = self.config.timings;
                let until = cx.now + timings.replay;
                self.state = State::Resuming { deadline: cx.now + timings.resumed, until, replayed: 0 };
                self.send(cx.now, payload);
                self.changed(Change::Resuming { sequence });
            }
            None => {
                self.state = State::AwaitingPermit { ask_again_at: cx.now };
                self.ask_queue(cx.now);
            }
        }
    }

    pub(super) fn permit(&mut self, now: Instant, _spent: IdentifyPermit) {
        match self.state {
            State::AwaitingPermit { .. } => {}
            // The permit crossed our `LeaveQueue`, which already gave it back. The shard waits again and must
            // not leave the queue a second time.
            State::Queued { .. } | State::Connecting { .. } | State::AwaitingHello { .. }
                if self.session.is_none() =>
            {
                return;
            }
            _ => {
                self.outputs.push_back(Output::LeaveQueue);
                return;
            }
        }
        let payload = payload::identify(&payload::Identify {
            token: &self.config.token,
            shard: self.config.shard,
            count: self.config.count,
            intents: self.config.intents,
            large_threshold: self.config.large_threshold,
            library: &self.config.library,
            compress: self.config.wire.payload_compression,
            presence: self.presence.as_ref(),
        });
        self.presence_unsent = false;
        self.presence_unproven = None;
        self.failed_identifies += 1;
        self.state = State::Identifying { deadline: now + self.config.timings.ready };
        self.send(now, payload);
        self.changed(Change::Identifying);
    }

    pub(super) fn dispatch(&mut self, cx: &mut Context<'_>, envelope: &Envelope<'_>) {
        if envelope.sequence.is_none() {
            self.odd(Oddity::Unnumbered);
        }
        self.malformed = 0;
        if self.is_ending_session() {
            if let State::Resuming { .. } = self.state {
                self.end_session(cx.now);
            }
            return;
        }
        match self.state {
            State::Identifying { .. } | State::Resuming { .. }
                if envelope.event_name() == Some(EventName::Ready) =>
            {
                self.ready(cx, envelope.sequence.unwrap_or(0), envelope.data);
            }
            State::Resuming { .. } | State::Closing { replaying: true, .. } => {
                let Some(session) = &mut self.session else { return };
                let sequence = envelope.sequence.unwrap_or(session.sequence);
                if envelope.event_name() == Some(EventName::Resumed) {
                    session.sequence = session.sequence.max(sequence);
                    self.resumed(cx.now, sequence);
                } else if sequence > session.sequence || envelope.sequence.is_none() {
                    session.sequence = sequence;
                    if let State::Resuming { deadline, until, replayed } = &mut self.state {
                        // The replay makes progress, so the time limit starts again.
                        *deadline = (cx.now + self.config.timings.resumed).min(*until);
                        *replayed += 1;
                    }
                    self.outputs.push_back(Output::Deliver { sequence, replayed: true });
                }
                // Otherwise the dispatch was already delivered before the connection was lost (GW-020:
                // sequence numbers continue after a Resume).
            }
            State::Ready { .. } | State::Closing { .. } => {
                // Without a session the shard is closing after the session was discarded, so its dispatches
                // are dropped.
                let Some(session) = &mut self.session else { return };
                let sequence = envelope.sequence.unwrap_or(session.sequence);
                session.sequence = session.sequence.max(sequence);
                self.outputs.push_back(Output::Deliver { sequence, replayed: false });
            }
            _ => {}
        }
    }

    pub(super) fn ready(&mut self, cx: &mut Context<'_>, sequence: u64, data: &[u8]) {
        #[derive(Deserialize)]
        struct Ready {
            session_id: String,
            #[serde(default)]
            resume_gateway_url: Value,
            #[serde(default)]
            shard: Value,
            #[serde(default)]
            user: Value,
        }
        let Ok(ready) = serde_json::from_slice::<Ready>(data) else {
            return self.unreadable(cx, "ready has no session_id that can be read");
        };
        let pair = <[Number; 2]>::deserialize(&ready.shard).ok();
        match pair.and_then(|[shard, count]| Some([shard.value()?, count.value()?])) {
            Some(theirs) if theirs != [self.config.shard.0, self.config.count.get()].map(f64::from) => {
                return self.other_shard(cx, theirs);
            }
            None if !ready.shard.is_null() => self.odd(Oddity::UnreadableShard),
            _ => {}
        }
        let resume_url = ready.resume_gateway_url.as_str();
        let resume_url = resume_url.filter(|url| usable_resume_url(url, &self.config.gateway_url).is_some());
        if resume_url.is_none() {
            self.odd(Oddity::NoResumeUrl);
        }
        // READY replaces the whole old session at once (GW-124, GW-125).
        self.session = Some(Session {
            id: ready.session_id,
            resume_url: resume_url.map(str::to_owned),
            sequence,
            shard: self.config.shard,
            count: self.config.count,
            intents: self.config.intents,
            query: self.config.wire.query(),
        });
        self.user_id = ready.user["id"].as_str().and_then(|id| id.parse().ok());
        self.had_session = true;
        self.outputs.push_back(Output::SessionChanged(self.session.clone()));
        self.enter_ready(cx.now, Change::Ready, sequence);
    }

    /// Handles a READY of another shard, whose session would bring events of other guilds (GW-129). The
    /// first such READY may be a mix-up by a proxy; if the gateway repeats it, each further attempt would cost
    /// an Identify.
    fn other_shard(&mut self, cx: &mut Context<'_>, theirs: [f64; 2]) {
        let ours = [self.config.shard.0, self.config.count.get()];
        self.detail = Some(format!("READY is of shard {theirs:.0?}, not of {ours:?}").into());
        self.other_shards += 1;
        if self.other_shards < OTHER_SHARD_LIMIT {
            self.end_connection(cx, Reason::OtherShard);
        } else {
            // 4010 is the code with which Discord refuses an invalid shard.
            self.refuse(Reason::OtherShard, CloseCode(4010), Scope::Layout);
        }
    }

    pub(super) fn resumed(&mut self, now: Instant, sequence: u64) {
        match &mut self.state {
            State::Closing { replaying, .. } => {
                *replaying = false;
                self.outputs.push_back(Output::Deliver { sequence, replayed: false });
            }
            State::Resuming { replayed, .. } => {
                let change = Change::Resumed { replayed: *replayed };
                self.enter_ready(now, change, sequence);
            }
            _ => {}
        }
    }

    pub(super) fn enter_ready(&mut self, now: Instant, change: Change, sequence: u64) {
        self.state = State::Ready { since: now };
        self.other_shards = 0;
        // `vain_since` and `vain_resumes` are reset only when this connection ends.
        self.avoid_resume_url = false;
        self.changed(change);
        self.outputs.push_back(Output::Deliver { sequence, replayed: false });
        self.flush(now);
    }
}
