//! How a connection ends, and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Change, Context, FatalClose, Next, Output, Reason, Shard, State, Then, VAIN_RESUMES};
use crate::close::{CloseCode, Recovery, Scope, ours};

impl Shard {
    /// We end the connection: close it, and wait for the handshake.
    pub(super) fn end_connection(&mut self, cx: &mut Context<'_>, reason: Reason) {
        if self.ending_session.is_some() {
            self.give_up_ending();
            return;
        }
        let code = match reason {
            Reason::ReconnectRequested | Reason::Requested => ours::RECONNECT,
            Reason::Zombied => ours::ZOMBIED,
            Reason::InvalidSession { .. } => ours::INVALID_SESSION,
            Reason::Unreadable | Reason::OtherShard => ours::UNREADABLE,
            _ => ours::DEADLINE,
        };
        let after = self.plan_retry(cx, reason);
        self.forget_connection();
        self.state = self.closing(cx.now, Then::Retry { after });
        self.disconnected(reason, self.next(after));
        self.outputs.push_back(Output::Close(code));
    }

    fn closing(&self, now: Instant, then: Then) -> State {
        let replaying = matches!(self.state, State::Resuming { .. });
        State::Closing { deadline: now + self.config.timings.close, then, replaying }
    }

    /// Somebody wants another connection. An attempt to make one goes on, for the session that it was begun for.
    pub(super) fn reconnect(&mut self, cx: &mut Context<'_>, fresh: bool) {
        if self.is_ending_session() {
            return;
        }
        let attempting = matches!(self.state, State::Connecting { .. } | State::AwaitingHello { .. });
        if fresh && !attempting {
            self.drop_session();
        }
        if self.is_open() && !attempting {
            self.end_connection(cx, Reason::Requested);
        }
    }

    /// The connection is over, or never was. The next one waits for `at_least` this long, and a little more, so that those
    /// who were asked to wait for the same time do not come back together.
    pub(super) fn connection_over(&mut self, cx: &mut Context<'_>, reason: Reason, at_least: Duration) {
        if self.ending_session.is_some() {
            self.give_up_ending();
            return;
        }
        let mut after = self.plan_retry(cx, reason);
        if !at_least.is_zero() {
            after = after.max(at_least + self.config.timings.reconnect.base.mul_f64(cx.random()));
        }
        self.forget_connection();
        self.outputs.push_back(Output::Disconnect);
        self.disconnected(reason, self.next(after));
        self.state = State::Disconnected { retry_at: cx.now + after };
    }

    pub(super) fn closed(
        &mut self,
        cx: &mut Context<'_>,
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
            && self.ending_session.is_none()
        {
            self.refuse(reason, code, scope);
            return;
        }
        match self.state {
            State::Closing { .. } => {
                // The usual code here is the echo of our own; one that ends the session ends it (GW-083, GW-085).
                if let Reason::Closed(code) = reason
                    && code.recovery() == Recovery::NewSession
                {
                    self.invalidated_while_closing(cx, false);
                }
                self.detail = None;
                self.outputs.push_back(Output::Disconnect);
                self.after_close(cx.now);
            }
            _ if self.is_connected() => self.connection_over(cx, reason, Duration::ZERO),
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
        self.changed(Change::Refused(FatalClose { code, scope, intents: self.config.intents }));
    }

    /// Discord says, while we close the connection, that the session is invalid. Whatever was to follow waits as long as
    /// it would have after such a word before (GW-149).
    pub(super) fn invalidated_while_closing(&mut self, cx: &mut Context<'_>, resumable: bool) {
        if !resumable {
            self.drop_session();
        }
        let wait = self.wait_after_invalid_session(cx).max(self.wait_before_identify(cx));
        match &mut self.state {
            State::Closing { then: Then::Retry { after }, .. } => *after = (*after).max(wait),
            State::Closing { then: then @ Then::EndSession, .. } if !resumable => *then = Then::Stop,
            _ => {}
        }
    }

    /// What was to follow the closing handshake.
    pub(super) fn after_close(&mut self, now: Instant) {
        let State::Closing { then, .. } = self.state else { return };
        match then {
            Then::Retry { after } => self.state = State::Disconnected { retry_at: now + after },
            Then::Stop => self.stopped(),
            Then::EndSession => self.visit(now),
        }
    }

    fn stopped(&mut self) {
        self.state = State::Stopped;
        self.changed(Change::Stopped);
    }

    pub(super) fn stop(&mut self, now: Instant, reason: Reason) {
        if self.is_ending_session() {
            return;
        }
        let gives_up = reason == Reason::Stopping;
        if gives_up && self.session.is_some() {
            // To us it is over from here on, also if the process dies before Discord has heard of it.
            self.outputs.push_back(Output::SessionChanged(None));
            match &mut self.state {
                State::Closing { then, .. } => {
                    *then = Then::EndSession;
                    return self.forget_connection();
                }
                State::Disconnected { .. } => return self.visit(now),
                State::Connecting { .. } | State::AwaitingHello { .. } => {
                    self.ending_session = Some(now + self.config.timings.close);
                    return;
                }
                _ => {}
            }
        }
        if gives_up {
            self.session = None;
        }
        let code = if gives_up { ours::STOP } else { ours::DETACH };
        let connected = self.is_connected();
        self.forget_connection();
        if let State::Closing { then, .. } = &mut self.state {
            // Its close frame is sent already; the handshake goes on to its deadline.
            *then = Then::Stop;
        } else if connected {
            self.disconnected(reason, Next::End);
            self.state = self.closing(now, Then::Stop);
            self.outputs.push_back(Output::Close(code));
        } else {
            // Cancels an attempt to connect, too.
            self.outputs.push_back(Output::Disconnect);
            self.stopped();
        }
    }

    /// The shard was told to stop, and its session has yet to be ended at Discord.
    pub(super) fn is_ending_session(&self) -> bool {
        self.ending_session.is_some() || matches!(self.state, State::Closing { then: Then::EndSession, .. })
    }

    /// Connects once more, to end the session at Discord.
    fn visit(&mut self, now: Instant) {
        self.ending_session = Some(now + self.config.timings.close);
        self.connect(now);
    }

    /// Discord answered the Resume that was only to end the session.
    pub(super) fn end_session(&mut self, now: Instant) {
        self.ending_session = None;
        self.stop(now, Reason::Stopping);
    }

    /// The session cannot be ended at Discord in time, which forgets it by itself.
    pub(super) fn give_up_ending(&mut self) {
        self.forget_connection();
        self.ending_session = None;
        self.session = None;
        self.outputs.push_back(Output::Disconnect);
        self.stopped();
    }

    /// Decides whether the session is still good and how long to wait, and counts the failure.
    pub(super) fn plan_retry(&mut self, cx: &mut Context<'_>, reason: Reason) -> Duration {
        if let State::Ready { since } = self.state
            && cx.now.saturating_duration_since(since) >= self.config.timings.stable
        {
            self.failures = 0;
            self.failed_identifies = 0;
            self.invalidated = 0;
        }
        self.weigh_connection(cx.now, reason);
        let lost = match reason {
            Reason::InvalidSession { resumable } => !resumable,
            Reason::Closed(code) => code.recovery() == Recovery::NewSession,
            _ => false,
        };
        let keeps = self.config.timings.keep_session;
        let forgotten = self.vain_since.is_some_and(|since| cx.now.saturating_duration_since(since) >= keeps);
        if lost || forgotten {
            self.drop_session();
        }
        if let (State::Identifying { .. }, Reason::InvalidSession { .. }) = (&self.state, reason) {
            // A limit of Identify may have been hit (GW-146), and `max_concurrency` may have changed (GW-177).
            self.outputs.push_back(Output::AskGateway);
        }
        let timings = self.config.timings;
        let mut after = match reason {
            // What failed before counts no more: the connection that brought op 9 worked. Only more of them do.
            Reason::InvalidSession { .. } => {
                let again = timings.reconnect.delay(self.invalidated, cx.random());
                self.invalidated = self.invalidated.saturating_add(1);
                again.max(self.wait_after_invalid_session(cx))
            }
            _ => timings.reconnect.delay(self.failures, cx.random()),
        };
        after = after.max(self.wait_before_identify(cx));
        self.failures = self.failures.saturating_add(1);
        after
    }

    fn wait_before_identify(&self, cx: &mut Context<'_>) -> Duration {
        if self.session.is_some() {
            return Duration::ZERO;
        }
        self.config.timings.identify.delay(self.failed_identifies.saturating_sub(1), cx.random())
    }

    fn wait_after_invalid_session(&self, cx: &mut Context<'_>) -> Duration {
        let timings = self.config.timings;
        let spread = timings.invalid_session_max.saturating_sub(timings.invalid_session_min);
        timings.invalid_session_min + spread.mul_f64(cx.random())
    }

    /// Whether the connection that ends did anything for the session; if not, at which URL the next one is tried.
    fn weigh_connection(&mut self, now: Instant, reason: Reason) {
        let leaves_url = match self.state {
            // Nothing proved that there is a Gateway (GW-139): what cannot be opened, and what opens and says no Hello, is
            // the same.
            State::Connecting { at_gateway_url, .. } | State::AwaitingHello { at_gateway_url, .. } => {
                if at_gateway_url {
                    self.outputs.push_back(Output::AskGateway);
                }
                true
            }
            // A Resume that was not let finish proves nothing.
            State::Resuming { .. } if reason == Reason::Requested => return,
            State::Resuming { .. } if reason == Reason::ResumedTimeout => true,
            State::Resuming { replayed: 0, .. } => {
                self.vain_resumes += 1;
                self.vain_resumes >= VAIN_RESUMES
            }
            _ => {
                (self.vain_resumes, self.vain_since) = (0, None);
                return;
            }
        };
        self.vain_since.get_or_insert(now);
        if leaves_url {
            self.vain_resumes = 0;
            self.avoid_resume_url = !self.avoid_resume_url;
        }
    }

    /// Session, sequence number and resume URL are discarded together (GW-125, GW-140).
    pub(super) fn drop_session(&mut self) {
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
