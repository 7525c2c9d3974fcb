//! The end of a connection, and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Change, Context, FatalClose, Next, Output, Reason, Shard, State, Then, VAIN_RESUMES};
use crate::close::{CloseCode, Recovery, Scope, ours};

impl Shard {
    /// Closes the connection from this side, and waits for the closing handshake.
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

    /// Replaces the connection on request. An attempt to connect continues for the session that it was
    /// started for. A shard that stops or detaches does not return, and keeps the session that it leaves to
    /// another process.
    pub(super) fn reconnect(&mut self, cx: &mut Context<'_>, fresh: bool) {
        if self.is_ending_session() || matches!(self.state, State::Closing { then: Then::Stop, .. }) {
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

    /// Handles a connection that ended or could not be opened. The next attempt waits for at least `at_least`
    /// and a random extra time, so that shards that a host asked to wait equally long do not all return at
    /// once.
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
                // The code is usually the echo of our own. A code that ends the session still counts (GW-083
                // and GW-085: discard the session and identify).
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

    /// Ends the shard after a refusal, because trying again with the same parameters is pointless.
    pub(super) fn refuse(&mut self, reason: Reason, code: CloseCode, scope: Scope) {
        self.forget_connection();
        self.drop_session();
        self.state = State::Refused;
        self.outputs.push_back(Output::Disconnect);
        self.disconnected(reason, Next::End);
        self.changed(Change::Refused(FatalClose { code, scope, intents: self.config.intents }));
    }

    /// Handles an op 9 or a code that ends the session, received while the connection is being closed. The
    /// next attempt then waits as long as after any op 9 (GW-149: a random time between 1 and 5 s).
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

    /// Does what was planned for after the closing handshake.
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
            // Remove the stored session at once: it must not be resumed if the process dies before Discord
            // learns of the end.
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
            // The close frame was already sent; the handshake continues until its deadline.
            *then = Then::Stop;
        } else if connected {
            self.disconnected(reason, Next::End);
            self.state = self.closing(now, Then::Stop);
            self.outputs.push_back(Output::Close(code));
        } else {
            // `Disconnect` also cancels an attempt to connect.
            self.outputs.push_back(Output::Disconnect);
            self.stopped();
        }
    }

    /// Whether the shard is stopping and still has to end its session at Discord.
    pub(super) fn is_ending_session(&self) -> bool {
        self.ending_session.is_some() || matches!(self.state, State::Closing { then: Then::EndSession, .. })
    }

    /// Connects once more, to end the session at Discord.
    fn visit(&mut self, now: Instant) {
        self.ending_session = Some(now + self.config.timings.close);
        self.connect(now);
    }

    /// Closes the connection after Discord answered the Resume that was sent only to end the session.
    pub(super) fn end_session(&mut self, now: Instant) {
        self.ending_session = None;
        self.stop(now, Reason::Stopping);
    }

    /// Ends the shard although the session could not be ended at Discord in time. Discord discards an unused
    /// session by itself.
    pub(super) fn give_up_ending(&mut self) {
        self.forget_connection();
        self.ending_session = None;
        self.session = None;
        self.outputs.push_back(Output::Disconnect);
        self.stopped();
    }

    /// Decides whether the session is kept and how long to wait, and counts the failure.
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
            // The Identify may have exceeded a limit (GW-146: op 9 can mean that), and `max_concurrency` may
            // have changed (GW-177: the number of keys follows it).
            self.outputs.push_back(Output::AskGateway);
        }
        let timings = self.config.timings;
        let mut after = match reason {
            // Earlier failures do not count here, because the connection that brought op 9 worked. Only
            // repeated op 9 make the wait longer.
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

    /// Records whether the connection that ends made progress with the session. If not, decides which URL the
    /// next connection uses.
    fn weigh_connection(&mut self, now: Instant, reason: Reason) {
        let leaves_url = match self.state {
            // Nothing showed that a Gateway is there (GW-139: return to the bootstrap URL if no connection
            // can be opened). A connection without Hello counts like one that could not be opened.
            State::Connecting { at_gateway_url, .. } | State::AwaitingHello { at_gateway_url, .. } => {
                if at_gateway_url {
                    self.outputs.push_back(Output::AskGateway);
                }
                true
            }
            // A Resume that a reconnect request interrupted proves nothing.
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

    /// Discards the session, its sequence number and its resume URL together (GW-125 and GW-140: the three
    /// belong together, and op 9 `false` ends all of them).
    pub(super) fn drop_session(&mut self) {
        if self.session.take().is_some() {
            self.outputs.push_back(Output::SessionChanged(None));
        }
    }

    /// Discards everything that belongs to the connection.
    pub(super) fn forget_connection(&mut self) {
        self.leave_queue();
        self.heartbeat = None;
        self.presence_unsent |= self.presence_unproven.take().is_some();
        self.flush_at = self.commands.next_expiry();
    }

    /// Asks the identify queue to forget this shard, in the states in which the queue may know it.
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

    /// Whether a connection is open and not being closed from this side.
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
