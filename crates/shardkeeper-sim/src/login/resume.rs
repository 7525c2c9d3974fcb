//! Resume: whether the session can continue, and on which connection.

use super::attempt::{Attempt, Login, judge_pause, report};
use crate::discord::{Discord, Ended, State, ends_session};
use crate::fault::ConnectFault;
use crate::host::Host;
use crate::judge::Finding;
use crate::judgement;
use crate::link::{Feed, Out};

/// The data of a Resume.
pub(crate) struct Resume<'a> {
    pub(crate) token: &'a str,
    pub(crate) session: &'a str,
    pub(crate) sequence: u64,
}

/// Judges a Resume, and continues the session if it is accepted.
pub(crate) fn resume(discord: &Discord, resume: &Resume<'_>, attempt: Attempt<'_>) -> Login {
    let mut findings = Vec::new();
    let (shard, login) = {
        let mut state = discord.state();
        let attempt = Attempt { at: state.clock.at(attempt.at), ..attempt };
        let shard = state.sessions.get(resume.session).map(|session| (session.shard, session.count));
        let login = judge(discord, &mut state, resume, attempt, &mut findings);
        if let (Login::Refused, Some(shard)) = (&login, shard) {
            let now = state.now();
            state.refusals.invalidate(shard, now);
        }
        discord.changed(state);
        (shard, login)
    };
    report(discord, shard.map(|(shard, _)| shard), findings);
    login
}

impl Resume<'_> {
    /// What is wrong with the URL of this Resume, unless a fault excuses it.
    pub(crate) fn wrong_url(&self, discord: &Discord, host: Host) -> Option<&'static str> {
        let mut state = discord.state();
        let ordinal = state.sessions.get(self.session).map(|session| session.ordinal);
        match (host, ordinal) {
            (Host::Resume(_), Some(ordinal)) if discord.urls.resume_host(ordinal) != host => {
                Some("a Resume at the URL of another session")
            }
            (Host::Gateway, _) if !state.faults.excuse_bootstrap() => Some("a Resume at the bootstrap URL"),
            _ => None,
        }
    }
}

fn judge(
    discord: &Discord,
    state: &mut State,
    resume: &Resume<'_>,
    attempt: Attempt<'_>,
    findings: &mut Vec<Finding>,
) -> Login {
    let Attempt { mode, link, fault, at } = attempt;
    let id = resume.session;
    let now = state.now();
    state.sessions.expire(now);
    let refuse = |state: &mut State| {
        state.sessions.end(id, Ended { since: now, judgement: judgement::RESUME_AFTER_REFUSAL });
        state.report.resumes_refused += 1;
        Login::Refused
    };
    if let Some(Ended { since, judgement }) = state.sessions.ended(id) {
        if at < since {
            // The client could not know that the session was over, so it is refused but not blamed.
            state.report.resumes_refused += 1;
            return Login::Refused;
        }
        findings.push((judgement, judgement.what.into()));
        return refuse(state);
    }
    if let Some(ConnectFault::Close { code } | ConnectFault::CloseResume { code }) = fault {
        if let Some(session) = state.sessions.get_mut(id) {
            session.over |= ends_session(code);
            state.refusals.close((session.shard, session.count), code, now);
        }
        return Login::Closed { code, reason: "fault" };
    }
    let is_valid = fault.is_none() && state.access.accepts_token(resume.token);
    let Some(session) = state.sessions.live_mut(id).filter(|_| is_valid) else { return refuse(state) };
    if session.token != resume.token {
        let detail = "a Resume whose token is not written as in the Identify";
        findings.push((judgement::RESUME_OTHER_TOKEN, detail.into()));
        return refuse(state);
    }
    if session.mode != mode {
        let detail = format!("a Resume with {mode:?} of a session with {:?}", session.mode);
        findings.push((judgement::RESUME_OTHER_QUERY, detail));
    }
    if resume.sequence > session.sequence {
        let last = session.sequence;
        let detail = format!("a Resume from sequence {}, but the last one sent was {last}", resume.sequence);
        findings.push((judgement::RESUME_AHEAD, detail));
        state.sessions.end(id, Ended { since: now, judgement: judgement::RESUME_AFTER_4007 });
        return Login::Closed { code: 4007, reason: "Invalid seq." };
    }
    if !session.can_replay_after(resume.sequence) {
        return refuse(state);
    }
    let (shard, count, ordinal) = (session.shard, session.count, session.ordinal);
    // A session has one connection only, so the older one is closed (GW-141).
    if let Some(older) = state.sessions.resume(id, link).filter(|older| older.id != link.id) {
        older.feed(None);
        // A half-open connection would never write the close frame.
        if older.is_half_open() {
            older.cut();
        }
        older.send(Out::Close { code: 4000, reason: "resumed elsewhere" });
    }
    state.report.resumes += 1;
    state.ledger.known(shard, ordinal);
    let _ = state.let_guilds_arrive(id);
    if let Some(session) = state.sessions.get_mut(id) {
        state.report.replayed += session.replay_length(resume.sequence);
        session.push("RESUMED", r#"{"_trace":[]}"#, Some(link.id));
    }
    link.feed(Some(Feed { session: id.to_owned(), cursor: resume.sequence }));
    judge_pause(state, (shard, count), at, discord.config.timings.invalid_session_wait, findings);
    state.refusals.resumed((shard, count));
    Login::Accepted { session: id.to_owned() }
}
