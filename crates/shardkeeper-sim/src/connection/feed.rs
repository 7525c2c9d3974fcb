//! How the writer of a connection takes dispatches from its session, and notes what was sent.

use std::sync::Arc;

use tokio::time::Instant;

use crate::discord::{Discord, Ended};
use crate::judgement;
use crate::link::{Feed, Link, Out};

/// The client reads so slowly that events were dropped from the buffer before it got them.
pub(super) struct SlowClient;

/// The next dispatch for a connection; `None` when there is none yet.
pub(super) fn next_dispatch(
    discord: &Discord,
    feed: &Feed,
    link: &Link,
) -> Result<Option<Arc<[u8]>>, SlowClient> {
    let mut guard = discord.state();
    let state = &mut *guard;
    let arrival = state.let_guilds_arrive(&feed.session);
    let Some(session) = state.sessions.get(&feed.session) else { return Ok(None) };
    if !session.can_replay_after(feed.cursor) {
        return Err(SlowClient);
    }
    let (sequence, payload) = match session.next_after(feed.cursor, link.id) {
        Ok(next) => next,
        Err(drained) => {
            link.advance(drained.searched.max(feed.cursor));
            link.due([drained.due, arrival].into_iter().flatten().min());
            return Ok(None);
        }
    };
    if link.reorders()
        && let Ok((later, overtaking)) = session.next_after(sequence, link.id)
    {
        link.reordered();
        state.ledger.sent_late(&payload);
        state.history.sent_late(&payload);
        link.send(Out::Text(String::from_utf8_lossy(&payload).into_owned()));
        link.advance(later);
        return Ok(Some(overtaking));
    }
    link.advance(sequence);
    Ok(Some(payload))
}

/// Notes that op 9 was sent in a session at this time of the simulator's clock.
pub(super) fn sent_invalid(discord: &Discord, session: &str, resumable: bool, at: Instant) {
    let mut guard = discord.state();
    let state = &mut *guard;
    if let Some(session) = state.sessions.get_mut(session) {
        state.refusals.invalidate((session.shard, session.count), at);
        if !resumable {
            session.announced_end = Some(Ended { since: at, judgement: judgement::RESUME_AFTER_OP_9 });
        }
    }
}

/// Notes that a close frame was sent at this time of the simulator's clock. Some codes tell the client that
/// its session is over.
pub(super) fn sent_close(discord: &Discord, link: &Link, code: u16, at: Instant) {
    let judgement = match code {
        4003 => judgement::RESUME_AFTER_4003,
        4006 => judgement::RESUME_AFTER_4006,
        4007 => judgement::RESUME_AFTER_4007,
        4009 => judgement::RESUME_AFTER_4009,
        _ => return,
    };
    if let Some(session) = discord.state().sessions.of_link(link) {
        session.announced_end = Some(Ended { since: at, judgement });
    }
}
