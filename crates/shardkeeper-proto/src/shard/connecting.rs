//! The way to an open connection, through the identify queue for shards without a session.

use std::time::{Duration, Instant};

use super::{Change, Context, MAX_RETRY_AFTER, Output, Reason, Shard, State};
use crate::{CommandLimiter, Priority, gateway_url};

impl Shard {
    pub(super) fn begin_attempt(&mut self, now: Instant) {
        if self.session.is_some() {
            self.connect(now);
        } else {
            self.state = State::Queued { ask_again_at: now };
            self.changed(Change::Queued);
            self.ask_queue(now);
        }
    }

    pub(super) fn ask_queue(&mut self, now: Instant) {
        let priority = if self.had_session { Priority::LostSession } else { Priority::ColdStart };
        let again = now + self.config.timings.requeue;
        match &mut self.state {
            State::Queued { ask_again_at } => {
                *ask_again_at = again;
                self.outputs.push_back(Output::Enqueue(priority));
            }
            State::AwaitingPermit { ask_again_at } => {
                *ask_again_at = again;
                self.outputs.push_back(Output::ClaimPermit(priority));
            }
            _ => {}
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        let session = self.session.as_ref().filter(|_| !self.avoid_resume_url);
        let resume_url = session.and_then(|session| session.resume_url(&self.config.gateway_url));
        // An Identify never goes to a resume URL (GW-140).
        let base = resume_url.as_ref().unwrap_or(&self.config.gateway_url);
        let url = gateway_url(base, self.config.wire);
        let deadline = now + self.config.timings.connect;
        self.state = State::Connecting { deadline, at_gateway_url: resume_url.is_none() };
        self.changed(Change::Connecting { resuming: self.session.is_some() });
        self.outputs.push_back(Output::Connect(url));
    }

    pub(super) fn connected(&mut self, now: Instant) {
        if let State::Connecting { at_gateway_url, .. } = self.state {
            self.limiter = CommandLimiter::of(&self.config.timings);
            self.malformed = 0;
            let deadline = now + self.config.timings.hello;
            self.state = State::AwaitingHello { deadline, at_gateway_url };
        }
    }

    /// Plans the next attempt. `retry_after` is the wait that the host asked for; zero if it asked for none.
    pub(super) fn connect_failed(&mut self, cx: &mut Context<'_>, retry_after: Duration) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.connection_over(cx, Reason::ConnectFailed, retry_after.min(MAX_RETRY_AFTER));
    }
}
