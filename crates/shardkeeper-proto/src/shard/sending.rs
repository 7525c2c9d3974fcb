//! Outgoing payloads, sent as fast as the limits allow.

use std::time::Instant;

use super::{Output, Shard};
use crate::payload::{self, Payload};
use crate::{Command, CommandClass, CommandId, Urgency};

impl Shard {
    pub(super) fn send(&mut self, now: Instant, payload: Payload) {
        self.limiter.record(now);
        self.outputs.push_back(Output::Send(payload));
    }

    pub(super) fn send_heartbeat(&mut self, now: Instant) {
        let sequence = self.session.as_ref().map(|session| session.sequence);
        self.send(now, payload::heartbeat(sequence));
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.count_sent();
        }
    }

    pub(super) fn take_command(&mut self, now: Instant, id: CommandId, command: Command) {
        if self.check_command(&command).is_err() {
            self.outputs.push_back(Output::CommandExpired(id));
            return;
        }
        let timings = &self.config.timings;
        let lifetime = match command.class() {
            CommandClass::Voice => timings.voice_lifetime,
            CommandClass::Bulk => timings.bulk_lifetime,
        };
        self.commands.push(now, id, command, lifetime);
        self.flush(now);
    }

    /// Sends waiting payloads as far as the limits allow, and expires commands that waited too long.
    pub(super) fn flush(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat
            && heartbeat.requested
            && self.limiter.free_at(now, Urgency::Requested) <= now
        {
            heartbeat.requested = false;
            self.send_heartbeat(now);
        }
        while let Some(id) = self.commands.pop_expired(now) {
            self.outputs.push_back(Output::CommandExpired(id));
        }
        if self.is_ready() {
            self.flush_commands(now, CommandClass::Voice);
            self.flush_presence(now);
            self.flush_commands(now, CommandClass::Bulk);
        }
        self.flush_at = self.next_flush(now);
    }

    pub(super) fn give_up_commands(&mut self, now: Instant) {
        while let Some(id) = self.commands.pop_expired(now) {
            self.outputs.push_back(Output::CommandExpired(id));
        }
        for (id, command, expires_at) in self.commands.take_movable() {
            self.outputs.push_back(Output::CommandGivenUp(id, command, expires_at));
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
            self.presence_unproven = Some(now);
        }
    }

    fn flush_commands(&mut self, now: Instant, class: CommandClass) {
        while self.commands.is_waiting(class) && self.limiter.free_at(now, urgency(class)) <= now {
            if let Some((id, payload)) = self.commands.pop(class) {
                self.send(now, payload);
                self.outputs.push_back(Output::CommandSent(id));
            }
        }
    }

    /// When the limits next allow something that waits, or a command expires.
    fn next_flush(&mut self, now: Instant) -> Option<Instant> {
        let requested = self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.requested);
        let requested = requested.then(|| self.limiter.free_at(now, Urgency::Requested));
        let expiry = self.commands.next_expiry();
        let ready = self.is_ready();
        let presence = (ready && self.presence_unsent).then(|| self.limiter.presence_free_at(now));
        let waiting = CommandClass::ALL.into_iter().filter(|class| ready && self.commands.is_waiting(*class));
        let command = waiting.map(|class| self.limiter.free_at(now, urgency(class))).min();
        requested.into_iter().chain(expiry).chain(presence).chain(command).min()
    }
}

fn urgency(class: CommandClass) -> Urgency {
    match class {
        CommandClass::Voice => Urgency::Command,
        CommandClass::Bulk => Urgency::Bulk,
    }
}
