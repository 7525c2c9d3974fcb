//! What goes out, as fast as the limits allow.

use std::time::Instant;

use super::{Output, Shard};
use crate::payload::{self, Payload};
use crate::{CommandClass, Urgency};

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
        if self.is_ready() {
            self.flush_commands(now, CommandClass::Voice);
            self.flush_presence(now);
            self.flush_commands(now, CommandClass::Bulk);
        }
        self.flush_at = self.next_flush(now);
    }

    fn flush_presence(&mut self, now: Instant) {
        if self.presence_unsent
            && self.limiter.presence_free_at(now) <= now
            && let Some(update) = &self.presence
        {
            self.outputs.push_back(Output::Send(update.payload()));
            self.limiter.record_presence(now);
            self.presence_unsent = false;
        }
    }

    fn flush_commands(&mut self, now: Instant, class: CommandClass) {
        while self.commands.is_waiting(class) && self.limiter.free_at(now, Urgency::Command) <= now {
            if let Some(payload) = self.commands.pop(class) {
                self.send(now, payload);
            }
        }
    }

    /// When the limits let something pass that waits.
    fn next_flush(&mut self, now: Instant) -> Option<Instant> {
        let requested = self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.requested);
        let requested = requested.then(|| self.limiter.free_at(now, Urgency::Requested));
        if !self.is_ready() {
            return requested;
        }
        let presence = self.presence_unsent.then(|| self.limiter.presence_free_at(now));
        let waiting = [CommandClass::Voice, CommandClass::Bulk]
            .into_iter()
            .any(|class| self.commands.is_waiting(class));
        let command = waiting.then(|| self.limiter.free_at(now, Urgency::Command));
        requested.into_iter().chain(presence).chain(command).min()
    }
}
