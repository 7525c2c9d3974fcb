//! Which layout a start begins with: that of the sessions which it can resume, or else the wanted one.
//!
//! Input: the configuration, Discord's recommendation, the stored layout, and the usable sessions. Output: the
//! shards to start, and the shard count to reshard to afterwards. A pure function.
//!
//! A resumed session costs nothing, while a new layout costs an Identify for each shard and the events in
//! between. So the sessions decide, and the wanted count is reached from there by a reshard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use shardkeeper_proto::{ShardCount, ShardId};

use super::config::LayoutChoice;
use crate::gateway_info::MAX_SHARDS;
use crate::layout::{Layout, Layouts, Next, ShardKey, gcd};
use crate::store::LayoutRecord;

/// What a start knows.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) choice: &'a LayoutChoice,
    /// The configured shard count, or else the one that Discord recommends.
    pub(super) wanted: ShardCount,
    pub(super) record: Option<&'a LayoutRecord>,
    /// Stored sessions that a shard of theirs can resume.
    pub(super) stored: BTreeMap<ShardKey, ShardCount>,
    /// Sessions that the bot was given and that a shard of theirs can resume. They have no generation.
    pub(super) given: BTreeSet<(ShardCount, ShardId)>,
    /// The highest generation that the store has a session of; 0 for none.
    pub(super) newest_stored: u32,
}

/// What a start begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FirstLayout {
    pub(super) layouts: Layouts,
    /// Shards of this process that own their guilds.
    pub(super) active: Vec<ShardKey>,
    /// Shards of an unfinished group of a reshard, which have sessions already.
    pub(super) warming: Vec<ShardKey>,
    /// Whether Discord has refused this layout before.
    pub(super) refused: bool,
    /// The shard count to reshard to; `None` if the newest layout has the wanted count.
    pub(super) wanted: Option<ShardCount>,
    pub(super) reason: Reason,
}

/// Why a start begins with its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No session can be resumed.
    NoSessions,
    /// So many of the shards can be resumed.
    Sessions { usable: usize, shards: usize },
    /// Fewer than half of the shards could be resumed in the layout of the sessions.
    FewSessions { usable: usize, shards: usize },
    /// Discord has refused the layout of the sessions.
    Refused,
    /// This process runs only a part of the guilds of some shard in the layout of the sessions.
    Slice,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSessions => f.write_str("no session can be resumed"),
            Self::Sessions { usable, shards } => write!(f, "{usable} of {shards} sessions can be resumed"),
            Self::FewSessions { usable, shards } => {
                write!(f, "only {usable} of {shards} sessions of another layout can be resumed")
            }
            Self::Refused => f.write_str("discord has refused the layout of the stored sessions"),
            Self::Slice => {
                f.write_str("the shard ids of this process divide a shard of the stored sessions' layout")
            }
        }
    }
}

/// Chooses the layout that a start begins with.
pub(super) fn first_layout(known: &Known<'_>) -> FirstLayout {
    let record = known.record.and_then(Candidate::of_record);
    let candidate = match (Candidate::of_given(known), record) {
        // The store knows more about the layout that the given sessions belong to.
        (Some(given), Some(record)) if given.counts().is_subset(&record.counts()) => Some(record),
        (Some(given), _) => Some(given),
        (None, Some(record)) => Some(record),
        (None, None) => Candidate::of_sessions(known),
    };
    let mut reason = Reason::NoSessions;
    if let Some(candidate) = candidate {
        match candidate.without_refused(known.wanted).and_then(|candidate| known.follow(candidate)) {
            Ok(first) => return first,
            Err(why) => reason = why,
        }
    }
    known.start_anew(reason)
}

/// A layout that a start can follow.
struct Candidate {
    layouts: Layouts,
    refused: bool,
}

impl Candidate {
    /// The stored layout. `None` if the record is of a later version, or damaged.
    fn of_record(record: &LayoutRecord) -> Option<Self> {
        let current = layout(record.generation, record.count)?;
        let next = record.reshard.as_ref().map(|reshard| {
            let layout = layout(reshard.generation, reshard.count)?;
            let groups = gcd(current.count.get(), layout.count.get());
            let moved = reshard.moved.iter().copied().filter(|group| *group < groups).collect();
            Some(Next { layout, moved }).filter(|_| layout.generation > current.generation)
        });
        let next = match next {
            Some(next) => Some(next?),
            None => None,
        };
        let readable = record.is_readable();
        readable.then_some(Self { layouts: Layouts { current, next }, refused: record.refused })
    }

    /// The layout of the most stored sessions, if no layout was stored with them.
    fn of_sessions(known: &Known<'_>) -> Option<Self> {
        let mut sessions: BTreeMap<(u32, ShardCount), usize> = BTreeMap::new();
        for (shard, count) in &known.stored {
            *sessions.entry((shard.generation, *count)).or_default() += 1;
        }
        let ((generation, count), _) = sessions.into_iter().max_by_key(|(of, sessions)| (*sessions, *of))?;
        Some(Self { layouts: Layouts::new(layout(generation, count)?), refused: false })
    }

    /// The layout of the most given sessions. Sessions of a second count continue a reshard, if they are of
    /// other groups: [`detach`](crate::Shardkeeper::detach) returns those of the shards that own their guilds.
    fn of_given(known: &Known<'_>) -> Option<Self> {
        let mut counts: BTreeMap<ShardCount, BTreeSet<ShardId>> = BTreeMap::new();
        for (count, shard) in &known.given {
            counts.entry(*count).or_default().insert(*shard);
        }
        let mut by_size: Vec<_> = counts.into_iter().map(|(count, ids)| (ids.len(), count, ids)).collect();
        by_size.sort();
        let (_, count, ids) = by_size.pop()?;
        let first = known.highest_generation() + 1;
        let (mut current, mut next) = (layout(first, count)?, None);
        if let Some((_, other, other_ids)) = by_size.pop() {
            let groups = gcd(count.get(), other.get());
            let groups_of = |ids: BTreeSet<ShardId>| ids.into_iter().map(|id| id.0 % groups).collect();
            let (here, there): (BTreeSet<u32>, BTreeSet<u32>) = (groups_of(ids), groups_of(other_ids));
            if here.is_disjoint(&there) {
                let (from, to, moved) =
                    if count == known.wanted { (other, count, here) } else { (count, other, there) };
                current = layout(first, from)?;
                next = Some(Next { layout: layout(first + 1, to)?, moved });
            }
        }
        Some(Self { layouts: Layouts { current, next }, refused: false })
    }

    fn counts(&self) -> BTreeSet<ShardCount> {
        both(&self.layouts).map(|layout| layout.count).collect()
    }

    /// What is left when Discord has refused the layout: the next one, if a reshard leads to it. A refused count
    /// that is wanted all the same is tried again, with the sessions of the shards that were not refused.
    fn without_refused(self, wanted: ShardCount) -> Result<Self, Reason> {
        if !self.refused || self.layouts.current.count == wanted && self.layouts.next.is_none() {
            return Ok(self);
        }
        let next = self.layouts.next.ok_or(Reason::Refused)?;
        Ok(Self { layouts: Layouts::new(next.layout), refused: false })
    }
}

fn layout(generation: u32, count: ShardCount) -> Option<Layout> {
    (u64::from(count.get()) <= MAX_SHARDS).then_some(Layout { generation, count })
}

fn both(layouts: &Layouts) -> impl Iterator<Item = Layout> {
    [Some(layouts.current), layouts.next.as_ref().map(|next| next.layout)].into_iter().flatten()
}

impl Known<'_> {
    /// Begins with this layout, if that is worth it: with fewer than half of the sessions, the wanted layout
    /// costs fewer Identifies than this one and a reshard.
    fn follow(&self, Candidate { layouts, refused }: Candidate) -> Result<FirstLayout, Reason> {
        let (mut active, mut warming, mut usable) = (Vec::new(), Vec::new(), 0);
        for layout in both(&layouts) {
            let slice = Slice::new(self.choice, layout.count);
            for key in layout.count.ids().map(|id| layout.key(id)) {
                let is_active = layouts.active(key.id) == key;
                let has_session = self.can_resume(key, layout.count, is_active);
                match slice.share(key.id) {
                    Share::Whole if is_active => {
                        active.push(key);
                        usable += usize::from(has_session);
                    }
                    Share::Whole if has_session && key.generation > layouts.current.generation => {
                        warming.push(key);
                    }
                    Share::Part if is_active => return Err(Reason::Slice),
                    _ => {}
                }
            }
        }
        let shards = active.len();
        let is_wanted = layouts.current.count == self.wanted && layouts.next.is_none();
        match usable {
            0 => return Err(Reason::NoSessions),
            _ if usable * 2 < shards && !is_wanted => return Err(Reason::FewSessions { usable, shards }),
            _ => {}
        }
        let wanted = Some(self.wanted).filter(|wanted| *wanted != layouts.newest().count);
        let reason = Reason::Sessions { usable, shards };
        Ok(FirstLayout { layouts, active, warming, refused, wanted, reason })
    }

    /// Begins with the wanted layout. It keeps its generation if it was stored before.
    fn start_anew(&self, reason: Reason) -> FirstLayout {
        let is_wanted = |layout: &Layout| layout.count == self.wanted;
        let record = self.record.and_then(Candidate::of_record);
        let stored = record.and_then(|record| both(&record.layouts).filter(is_wanted).last());
        let generation = self.highest_generation() + 1;
        let layout = stored.unwrap_or(Layout { generation, count: self.wanted });
        let ids: Vec<ShardId> = match self.choice {
            LayoutChoice::Some { ids, .. } => ids.iter().copied().collect(),
            _ => layout.count.ids().collect(),
        };
        FirstLayout {
            layouts: Layouts::new(layout),
            active: ids.into_iter().map(|id| layout.key(id)).collect(),
            warming: Vec::new(),
            refused: false,
            wanted: None,
            reason,
        }
    }

    fn can_resume(&self, key: ShardKey, count: ShardCount, is_active: bool) -> bool {
        self.stored.get(&key) == Some(&count) || is_active && self.given.contains(&(count, key.id))
    }

    /// The highest generation that the store knows; 0 for none, so that the first one is 1.
    fn highest_generation(&self) -> u32 {
        let of_record = self.record.map_or(0, |record| {
            record
                .reshard
                .as_ref()
                .map_or(record.generation, |reshard| reshard.generation.max(record.generation))
        });
        // Two more have to fit.
        of_record.max(self.newest_stored).min(u32::MAX - 2)
    }
}

/// How the guilds of this process are spread over the shards of a layout, which need not be that of the
/// configuration.
pub(super) struct Slice {
    /// Shards of both layouts that agree modulo this number have guilds in common.
    step: u32,
    /// How many shards of the configuration each of these classes has, and how many of them this process runs.
    size: usize,
    ours: Option<Vec<usize>>,
}

/// How much of a shard's guilds belongs to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Nothing,
    Part,
    Whole,
}

impl Slice {
    pub(super) fn new(choice: &LayoutChoice, count: ShardCount) -> Self {
        let LayoutChoice::Some { ids, count: of } = choice else {
            return Self { step: 1, size: 1, ours: None };
        };
        let step = gcd(count.get(), of.get());
        let mut ours = vec![0; step as usize];
        for id in ids {
            ours[(id.0 % step) as usize] += 1;
        }
        Self { step, size: (of.get() / step) as usize, ours: Some(ours) }
    }

    pub(super) fn share(&self, shard: ShardId) -> Share {
        match &self.ours {
            None => Share::Whole,
            Some(ours) => match ours[(shard.0 % self.step) as usize] {
                0 => Share::Nothing,
                all if all == self.size => Share::Whole,
                _ => Share::Part,
            },
        }
    }
}

#[cfg(test)]
mod tests;
