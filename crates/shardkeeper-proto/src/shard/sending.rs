//! What goes out, as fast as the limits allow.

use std::time::Instant;

use super::{Output, Shard};
use crate::Urgency;
use crate::payload::{self, Payload};

impl Shard {
    pub(super) fn send(&mut self, now: Instant, payload: Payload) {
        self.limiter.record(now);
        self.outputs.push_back(Output::Send(payload));
    }

    pub(super) fn send_heartbeat(&mut self, now: Instant) {
        let sequence = self.session.as_ref().map(|session| session.sequence);
        self.send(now, payload::heartbeat(sequence));
    }

    /// Sends what waits, as far as the limits allow.
    pub(super) fn flush(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat
            && heartbeat.requested
            && self.limiter.free_at(now, Urgency::Requested) <= now
        {
            heartbeat.requested = false;
            self.send_heartbeat(now);
        }
        if self.is_ready()
            && self.presence_unsent
            && self.limiter.presence_free_at(now) <= now
            && let Some(update) = &self.presence
        {
            self.outputs.push_back(Output::Send(update.payload()));
            self.limiter.record_presence(now);
            self.presence_unsent = false;
        }
        let requested = self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.requested);
        let requested = requested.then(|| self.limiter.free_at(now, Urgency::Requested));
        let presence = (self.is_ready() && self.presence_unsent).then(|| self.limiter.presence_free_at(now));
        self.flush_at = requested.into_iter().chain(presence).min();
    }
}
