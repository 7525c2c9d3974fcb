//! How a connection ends, and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Change, Next, Output, Reason, Refusal, Shard, State, Then};
use crate::close::{CloseCode, Recovery, Scope, ours};

impl Shard {
    /// We end the connection: close it, and wait for the handshake.
    pub(super) fn end_connection(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, reason: Reason) {
        let code = match reason {
            Reason::ReconnectRequested | Reason::Requested => ours::RECONNECT,
            Reason::Zombied => ours::ZOMBIED,
            Reason::InvalidSession { .. } => ours::INVALID_SESSION,
            Reason::Unreadable | Reason::OtherShard => ours::UNREADABLE,
            _ => ours::DEADLINE,
        };
        let after = self.plan_retry(now, random, reason);
        self.forget_connection();
        self.state = self.closing(now, Then::Retry { after });
        self.disconnected(reason, self.next(after));
        self.outputs.push_back(Output::Close(code));
    }

    fn closing(&self, now: Instant, then: Then) -> State {
        let replaying = matches!(self.state, State::Resuming { .. });
        State::Closing { deadline: now + self.config.timings.close, then, replaying }
    }

    /// Somebody wants another connection. An attempt to make one goes on, for the session that it was begun for.
    pub(super) fn reconnect(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, fresh: bool) {
        let attempting = matches!(self.state, State::Connecting { .. } | State::AwaitingHello { .. });
        if fresh && !attempting {
            self.drop_session();
        }
        if self.is_open() && !attempting {
            self.end_connection(now, random, Reason::Requested);
        }
    }

    /// The connection is over, or never was.
    pub(super) fn connection_over(&mut self, now: Instant, random: &mut dyn FnMut() -> f64, reason: Reason) {
        let after = self.plan_retry(now, random, reason);
        self.forget_connection();
        self.outputs.push_back(Output::Disconnect);
        self.disconnected(reason, self.next(after));
        self.after_close(now, Then::Retry { after });
    }

    pub(super) fn closed(
        &mut self,
        now: Instant,
        random: &mut dyn FnMut() -> f64,
        code: Option<u16>,
        corrupt: bool,
        detail: Option<Arc<str>>,
    ) {
        self.detail = detail;
        let reason = match code {
            _ if corrupt => Reason::Unreadable,
            Some(code) => Reason::Closed(CloseCode(code)),
            None => Reason::Lost,
        };
        if let Reason::Closed(code) = reason
            && let Recovery::Fatal(scope) = code.recovery()
            && self.is_connected()
        {
            self.refuse(reason, code, scope);
            return;
        }
        match self.state {
            State::Closing { then, .. } => {
                // The usual code here is the echo of our own; one that ends the session ends it (GW-083, GW-085).
                if let Reason::Closed(code) = reason
                    && code.recovery() == Recovery::NewSession
                {
                    self.drop_session();
                }
                self.detail = None;
                self.outputs.push_back(Output::Disconnect);
                self.after_close(now, then);
            }
            _ if self.is_connected() => self.connection_over(now, random, reason),
            _ => {}
        }
    }

    /// Trying again is pointless.
    pub(super) fn refuse(&mut self, reason: Reason, code: CloseCode, scope: Scope) {
        self.forget_connection();
        self.drop_session();
        self.state = State::Refused;
        self.outputs.push_back(Output::Disconnect);
        self.disconnected(reason, Next::End);
        self.changed(Change::Refused(Refusal { code, scope, intents: self.config.intents }));
    }

    pub(super) fn after_close(&mut self, now: Instant, then: Then) {
        match then {
            Then::Retry { after } => self.state = State::Disconnected { retry_at: now + after },
            Then::Stop => {
                self.state = State::Stopped;
                self.changed(Change::Stopped);
            }
        }
    }

    pub(super) fn stop(&mut self, now: Instant, reason: Reason) {
        let code = if reason == Reason::Stopping { ours::STOP } else { ours::DETACH };
        let was_closing = matches!(self.state, State::Closing { .. });
        let connected = self.is_connected();
        self.forget_connection();
        if reason == Reason::Stopping {
            self.drop_session();
        }
        if was_closing {
            // Its close frame is sent already; the handshake goes on to its deadline.
            if let State::Closing { then, .. } = &mut self.state {
                *then = Then::Stop;
            }
        } else if connected {
            self.disconnected(reason, Next::End);
            self.state = self.closing(now, Then::Stop);
            self.outputs.push_back(Output::Close(code));
        } else {
            // Cancels an attempt to connect, too.
            self.outputs.push_back(Output::Disconnect);
            self.after_close(now, Then::Stop);
        }
    }

    /// Decides whether the session is still good and how long to wait, and counts the failure.
    pub(super) fn plan_retry(
        &mut self,
        now: Instant,
        random: &mut dyn FnMut() -> f64,
        reason: Reason,
    ) -> Duration {
        if let State::Ready { since } = self.state
            && now.saturating_duration_since(since) >= self.config.timings.stable
        {
            self.failures = 0;
            self.failed_identifies = 0;
            self.invalidated = 0;
        }
        // One that was not let finish has not failed.
        let fruitless =
            matches!(self.state, State::Resuming { replayed: 0, .. }) && reason != Reason::Requested;
        if fruitless {
            self.failed_resumes += 1;
        }
        let lost = match reason {
            Reason::InvalidSession { resumable } => !resumable,
            Reason::Closed(code) => match code.recovery() {
                Recovery::NewSession => true,
                Recovery::ResumeOnce => fruitless,
                Recovery::Resume | Recovery::Fatal(_) => false,
            },
            _ => false,
        };
        if lost || self.failed_resumes >= self.config.max_failed_resumes {
            self.drop_session();
        }
        if let (State::Identifying { .. }, Reason::InvalidSession { .. }) = (&self.state, reason) {
            // The limits may be others than we know (GW-146, GW-177).
            self.outputs.push_back(Output::AskGateway);
        }
        let timings = self.config.timings;
        let mut after = match reason {
            // What failed before counts no more: the connection that brought op 9 worked. Only more of them do.
            Reason::InvalidSession { .. } => {
                let again = timings.reconnect.delay(self.invalidated, random());
                self.invalidated = self.invalidated.saturating_add(1);
                let spread = timings.invalid_session_max.saturating_sub(timings.invalid_session_min);
                again.max(timings.invalid_session_min + spread.mul_f64(random()))
            }
            _ => timings.reconnect.delay(self.failures, random()),
        };
        if self.session.is_none() {
            after = after.max(timings.identify.delay(self.failed_identifies.saturating_sub(1), random()));
        }
        self.failures = self.failures.saturating_add(1);
        after
    }

    /// Session, sequence and resume URL go together (GW-125, GW-140).
    pub(super) fn drop_session(&mut self) {
        self.failed_resumes = 0;
        self.avoid_resume_url = false;
        if self.session.take().is_some() {
            self.outputs.push_back(Output::SessionChanged(None));
        }
    }

    /// Ends what lives as long as a connection does.
    pub(super) fn forget_connection(&mut self) {
        self.leave_queue();
        self.heartbeat = None;
        self.presence_unsent |= self.presence_unproven.take().is_some();
        self.flush_at = self.commands.next_expiry();
    }

    /// In the states in which the identify queue may know this shard, tells it to forget it.
    pub(super) fn leave_queue(&mut self) {
        let known = match self.state {
            State::Queued { .. } | State::AwaitingPermit { .. } => true,
            State::Connecting { .. } | State::AwaitingHello { .. } => self.session.is_none(),
            _ => false,
        };
        if known {
            self.outputs.push_back(Output::LeaveQueue);
        }
    }

    /// There is a connection, and we are not closing it.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.state,
            State::AwaitingHello { .. }
                | State::AwaitingPermit { .. }
                | State::Identifying { .. }
                | State::Resuming { .. }
                | State::Ready { .. }
        )
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_open() || matches!(self.state, State::Closing { .. })
    }

    pub(super) fn next(&self, after: Duration) -> Next {
        if self.session.is_some() { Next::Resume { after } } else { Next::Identify { after } }
    }

    fn disconnected(&mut self, reason: Reason, next: Next) {
        let detail = self.detail.take();
        self.changed(Change::Disconnected { reason, detail, next });
    }

    pub(super) fn changed(&mut self, change: Change) {
        self.outputs.push_back(Output::Changed(change));
    }
}
