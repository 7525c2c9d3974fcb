//! The sessions that a start can resume: those that the bot was given, and those that were stored.
//!
//! Input: both, and the configuration. Output: the session of each shard of the [first
//! layout](super::first_layout).

use std::collections::BTreeMap;
use std::time::SystemTime;

use shardkeeper_proto::{Intents, Session, SessionMismatch, ShardCount, ShardId};
use url::Url;

use super::config::Config;
use super::first_layout::Known;
use crate::layout::ShardKey;
use crate::store::{LayoutRecord, SessionRecord, Stored};

pub(super) struct Resumable {
    stored: BTreeMap<ShardKey, Session>,
    given: BTreeMap<(ShardCount, ShardId), Session>,
    /// What each generation asks Discord for, if a reshard is under way that changes it.
    pub(super) intents: BTreeMap<u32, Intents>,
}

impl Resumable {
    pub(super) fn new(config: &Config, gateway_url: &Url, contents: &Stored, wall: SystemTime) -> Self {
        let (mut recent, mut unusable, mut misfits) = (Vec::new(), Vec::new(), Vec::new());
        for record in &contents.sessions {
            match record.check(wall, config.settings.max_session_age) {
                Ok(()) => recent.push(record),
                Err(reason) => unusable.push(reason),
            }
        }
        let intents = contents.layout.as_ref().map_or_else(BTreeMap::new, |layout| intents(layout, &recent));
        let mut fits = |session: &Session, intents: Option<&Intents>| {
            let intents = intents.copied().unwrap_or(config.settings.intents);
            let shard = config.shard(session.shard, session.count, intents, gateway_url);
            session.check(&shard).map_err(|misfit: SessionMismatch| misfits.push(misfit)).is_ok()
        };
        let (mut stored, mut given) = (BTreeMap::new(), BTreeMap::new());
        for session in &config.settings.sessions {
            if fits(session, None) {
                given.entry((session.count, session.shard)).or_insert_with(|| session.clone());
            }
        }
        for record in recent {
            if fits(&record.session, intents.get(&record.generation)) {
                stored.insert(record.slot(), record.session.clone());
            }
        }
        if let Some(reason) = unusable.first() {
            tracing::warn!(
                sessions = unusable.len(),
                "stored sessions are not used, the first because {reason}"
            );
        }
        if let Some(misfit) = misfits.first() {
            tracing::warn!(
                sessions = misfits.len(),
                "sessions cannot be resumed, the first because {misfit}"
            );
        }
        Self { stored, given, intents }
    }

    /// What the choice of the first layout depends on.
    pub(super) fn known<'a>(
        &self,
        config: &'a Config,
        wanted: ShardCount,
        contents: &'a Stored,
    ) -> Known<'a> {
        Known {
            choice: &config.layout,
            wanted,
            record: contents.layout.as_ref(),
            stored: self.stored.iter().map(|(shard, session)| (*shard, session.count)).collect(),
            given: self.given.keys().copied().collect(),
            newest_stored: contents.sessions.iter().map(|record| record.generation).max().unwrap_or_default(),
        }
    }

    /// Takes the session of a shard. A given session comes before a stored one; it is that of the shard which
    /// owns its guilds.
    pub(super) fn take(&mut self, shard: ShardKey, count: ShardCount, is_active: bool) -> Option<Session> {
        let given = is_active.then(|| self.given.remove(&(count, shard.id))).flatten();
        let stored = self.stored.remove(&shard).filter(|session| session.count == count);
        given.or(stored)
    }

    /// Reports the sessions that no shard has taken.
    pub(super) fn report_unused(&self) {
        let unused = self.stored.len() + self.given.len();
        if unused > 0 {
            tracing::warn!(sessions = unused, "sessions of other layouts are not resumed");
        }
    }
}

/// What the generations of a reshard ask Discord for. A session is fixed to the intents that it was started
/// with (GW-181), and the two sides of a reshard may differ in them.
fn intents(layout: &LayoutRecord, sessions: &[&SessionRecord]) -> BTreeMap<u32, Intents> {
    let Some(reshard) = &layout.reshard else { return BTreeMap::new() };
    let of = |generation| {
        let mut of = sessions.iter().filter(|record| record.generation == generation);
        let intents = of.next()?.session.intents;
        of.all(|record| record.session.intents == intents).then_some((generation, intents))
    };
    [layout.generation, reshard.generation].into_iter().filter_map(of).collect()
}
