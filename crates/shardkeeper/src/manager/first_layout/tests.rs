//! Starts with every mixture of configuration, stored layout and sessions.

use proptest::prelude::*;

use super::*;
use crate::layout::Role;

fn count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

fn key(generation: u32, id: u32) -> ShardKey {
    ShardKey { id: ShardId(id), generation }
}

fn keys(generation: u32, ids: impl IntoIterator<Item = u32>) -> Vec<ShardKey> {
    ids.into_iter().map(|id| key(generation, id)).collect()
}

fn slice(ids: impl IntoIterator<Item = u32>, of: u32) -> LayoutChoice {
    LayoutChoice::Some { ids: ids.into_iter().map(ShardId).collect(), count: count(of) }
}

/// A start that wants this many shards, and where nothing is stored.
fn wants(choice: &LayoutChoice, wanted: u32) -> Known<'_> {
    Known {
        choice,
        wanted: count(wanted),
        record: None,
        stored: BTreeMap::new(),
        given: BTreeSet::new(),
        newest_stored: 0,
    }
}

impl<'a> Known<'a> {
    fn record(self, record: &'a LayoutRecord) -> Self {
        Self { record: Some(record), ..self }
    }

    /// Adds stored sessions of shards of one layout.
    fn stored(mut self, generation: u32, of: u32, ids: impl IntoIterator<Item = u32>) -> Self {
        self.newest_stored = self.newest_stored.max(generation);
        self.stored.extend(keys(generation, ids).into_iter().map(|key| (key, count(of))));
        self
    }

    fn given(mut self, of: u32, ids: impl IntoIterator<Item = u32>) -> Self {
        self.given.extend(ids.into_iter().map(|id| (count(of), ShardId(id))));
        self
    }

    /// The first layout, if it is not being resharded: generation and count, and the count to reshard to.
    fn chosen(self) -> (u32, u32, Option<u32>, Reason) {
        let first = first_layout(&self);
        assert_eq!(first.layouts.next, None);
        assert_eq!(first.warming, []);
        let Layout { generation, count } = first.layouts.current;
        (generation, count.get(), first.wanted.map(ShardCount::get), first.reason)
    }
}

const ALL: LayoutChoice = LayoutChoice::Recommended;

fn all_of(shards: usize) -> Reason {
    Reason::Sessions { usable: shards, shards }
}

#[test]
fn without_sessions_the_wanted_layout_is_the_first() {
    assert_eq!(wants(&ALL, 4).chosen(), (1, 4, None, Reason::NoSessions));
    let record = LayoutRecord::new(3, count(6));
    assert_eq!(wants(&ALL, 4).record(&record).chosen(), (4, 4, None, Reason::NoSessions));
    // The same layout as before keeps its generation.
    assert_eq!(wants(&ALL, 6).record(&record).chosen(), (3, 6, None, Reason::NoSessions));
    let record = record.with_reshard(4, count(8), vec![0]);
    assert_eq!(wants(&ALL, 8).record(&record).chosen(), (4, 8, None, Reason::NoSessions));
    assert_eq!(wants(&ALL, 5).record(&record).chosen(), (5, 5, None, Reason::NoSessions));
}

#[test]
fn sessions_decide_and_the_wanted_count_comes_afterwards() {
    let record = LayoutRecord::new(3, count(4));
    for choice in [LayoutChoice::Recommended, LayoutChoice::All(count(6))] {
        let known = || wants(&choice, 6).record(&record);
        assert_eq!(known().stored(3, 4, 0..4).chosen(), (3, 4, Some(6), all_of(4)));
        let half = Reason::Sessions { usable: 2, shards: 4 };
        assert_eq!(known().stored(3, 4, 2..4).chosen(), (3, 4, Some(6), half));
        // Six Identifies cost less than three, and then six.
        let few = Reason::FewSessions { usable: 1, shards: 4 };
        assert_eq!(known().stored(3, 4, 2..3).chosen(), (4, 6, None, few));
        // Sessions of another generation, or of another count, are of no shard here.
        assert_eq!(known().stored(2, 4, 0..4).chosen(), (4, 6, None, Reason::NoSessions));
        assert_eq!(known().stored(3, 5, 0..5).chosen(), (4, 6, None, Reason::NoSessions));
    }
    let one = Reason::Sessions { usable: 1, shards: 4 };
    assert_eq!(wants(&ALL, 4).record(&record).stored(3, 4, 2..3).chosen(), (3, 4, None, one));
}

#[test]
fn without_a_record_the_layout_of_the_most_sessions_is_followed() {
    let known = || wants(&ALL, 4).stored(1, 2, 0..2).stored(2, 4, [0, 2, 3]);
    let three = Reason::Sessions { usable: 3, shards: 4 };
    assert_eq!(known().chosen(), (2, 4, None, three));
    assert_eq!(known().stored(3, 8, 0..8).chosen(), (3, 8, Some(4), all_of(8)));
    // A record that is damaged, or of a later version, counts as none.
    let mut later = LayoutRecord::new(1, count(2));
    later.format += 1;
    let huge = LayoutRecord::new(1, count(u32::MAX));
    let twice = LayoutRecord::new(1, count(2)).with_reshard(1, count(4), vec![]);
    for record in [later, huge, twice] {
        assert_eq!(known().record(&record).chosen(), (2, 4, None, three));
    }
    assert_eq!(wants(&ALL, 4).stored(1, u32::MAX, 0..9).chosen(), (2, 4, None, Reason::NoSessions));
}

#[test]
fn a_reshard_goes_on_where_it_was() {
    let record = LayoutRecord::new(3, count(4)).with_reshard(4, count(6), vec![1, 99]);
    let known = wants(&ALL, 6).record(&record).stored(3, 4, [0, 1, 2]).stored(4, 6, [0, 1, 3, 5]);
    let first = first_layout(&known);
    assert_eq!(first.active, [keys(3, [0, 2]), keys(4, [1, 3, 5])].concat());
    assert_eq!(first.warming, [key(4, 0)], "its group has not moved");
    assert_eq!(first.layouts.role(key(4, 2)), Role::Warming);
    assert_eq!((first.wanted, first.reason), (None, all_of(5)));
    assert_eq!(LayoutRecord::of(&first.layouts, false), {
        LayoutRecord::new(3, count(4)).with_reshard(4, count(6), vec![1])
    });
    // The reshard that was begun comes first.
    let known = wants(&ALL, 9).record(&record).stored(3, 4, [0, 2]).stored(4, 6, [1, 3, 5]);
    assert_eq!(first_layout(&known).wanted, Some(count(9)));
}

#[test]
fn a_reshard_to_the_same_count_has_shards_of_both_generations() {
    let record = LayoutRecord::new(1, count(3)).with_reshard(2, count(3), vec![2]);
    let known = wants(&ALL, 3).record(&record).stored(1, 3, 0..3).stored(2, 3, [1, 2]);
    let first = first_layout(&known);
    assert_eq!((first.active, first.warming), ([keys(1, [0, 1]), keys(2, [2])].concat(), keys(2, [1])));
    assert_eq!(first.wanted, None);
}

#[test]
fn a_refused_layout_does_not_come_back() {
    let mut record = LayoutRecord::new(1, count(2));
    record.refused = true;
    let known = |wanted| wants(&ALL, wanted).stored(1, 2, 0..2);
    assert_eq!(known(4).record(&record).chosen(), (2, 4, None, Reason::Refused));
    assert_eq!(known(4).given(2, 0..2).record(&record).chosen(), (2, 4, None, Reason::Refused));
    // A count that is wanted all the same loses no session.
    let first = first_layout(&known(2).record(&record));
    assert_eq!((first.layouts.current.generation, first.reason, first.refused), (1, all_of(2), true));
    // The layout that a reshard leads to is not refused.
    let record = record.with_reshard(2, count(4), vec![1]);
    let half = Reason::Sessions { usable: 2, shards: 4 };
    assert_eq!(known(4).stored(2, 4, [1, 3]).record(&record).chosen(), (2, 4, None, half));
    let few = Reason::FewSessions { usable: 1, shards: 4 };
    assert_eq!(known(5).stored(2, 4, [1]).record(&record).chosen(), (3, 5, None, few));
}

#[test]
fn given_sessions_come_before_stored_ones() {
    assert_eq!(wants(&ALL, 6).given(4, 0..4).chosen(), (1, 4, Some(6), all_of(4)));
    let record = LayoutRecord::new(3, count(4));
    let known = || wants(&ALL, 6).record(&record).stored(3, 4, 0..2);
    // The store knows their generation.
    assert_eq!(known().given(4, 2..4).chosen(), (3, 4, Some(6), all_of(4)));
    assert_eq!(known().given(8, 0..8).chosen(), (4, 8, Some(6), all_of(8)));
    // Two counts that have no guild in common are the two sides of a reshard.
    for (wanted, current, next, moved) in [(6, 4, 6, 1), (9, 6, 4, 0), (4, 6, 4, 0)] {
        let known = wants(&ALL, wanted).given(4, [0, 2]).given(6, [1, 3, 5]);
        let first = first_layout(&known);
        assert_eq!(first.layouts.current, Layout { generation: 1, count: count(current) }, "{wanted}");
        let layout = Layout { generation: 2, count: count(next) };
        assert_eq!(first.layouts.next, Some(Next { layout, moved: BTreeSet::from([moved]) }), "{wanted}");
        assert_eq!(first.reason, all_of(5), "{wanted}");
    }
    // Otherwise the larger part is followed.
    assert_eq!(wants(&ALL, 4).given(4, 0..4).given(6, 0..6).chosen(), (1, 6, Some(4), all_of(6)));
}

#[test]
fn a_slice_follows_a_layout_whose_shards_it_can_run_as_a_whole() {
    let record = LayoutRecord::new(1, count(2));
    let choice = slice([0, 2], 4);
    let first = first_layout(&wants(&choice, 4).record(&record).stored(1, 2, [0]));
    assert_eq!((first.active, first.wanted), (keys(1, [0]), Some(count(4))));
    let choice = slice([0, 1], 4);
    let first = first_layout(&wants(&choice, 4).record(&record).stored(1, 2, 0..2));
    assert_eq!((first.active, first.wanted, first.reason), (keys(2, [0, 1]), None, Reason::Slice));
    // The first group has moved; the second is divided between processes, and stays.
    let record = LayoutRecord::new(1, count(4)).with_reshard(2, count(6), vec![0]);
    let choice = slice([0, 1, 2], 4);
    let first = first_layout(&wants(&choice, 4).record(&record).stored(1, 4, [1]).stored(2, 6, [0, 2, 4]));
    assert_eq!(first.active, [keys(1, [1]), keys(2, [0, 2, 4])].concat());
    assert_eq!(first.reason, all_of(4));
}

fn a_choice() -> impl Strategy<Value = (LayoutChoice, u32)> {
    let ids = prop::collection::btree_set(0_u32..12, 1..12);
    (1_u32..12, ids, 0..3).prop_map(|(wanted, ids, kind)| {
        let ids: BTreeSet<u32> = ids.into_iter().map(|id| id % wanted).collect();
        let choice = match kind {
            0 => LayoutChoice::Recommended,
            1 => LayoutChoice::All(count(wanted)),
            _ => slice(ids, wanted),
        };
        (choice, wanted)
    })
}

fn a_record() -> impl Strategy<Value = Option<LayoutRecord>> {
    let moved = prop::collection::vec(0_u32..12, 0..4);
    let reshard = prop::option::of((1_u32..12, moved));
    prop::option::of((1_u32..12, reshard, any::<bool>())).prop_map(|record| {
        let (now, reshard, refused) = record?;
        let record = LayoutRecord { refused, ..LayoutRecord::new(5, count(now)) };
        Some(match reshard {
            Some((next, moved)) => record.with_reshard(6, count(next), moved),
            None => record,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever is stored: each guild of this process has exactly one active shard here, no other guild has
    /// one, and only what the start needs is begun.
    #[test]
    fn every_guild_has_one_shard_after_every_start(
        (choice, wanted) in a_choice(),
        record in a_record(),
        stored in prop::collection::btree_set((4_u32..7, 0_u32..12), 0..24),
        given in prop::collection::btree_set((1_u32..12, 0_u32..12), 0..6),
    ) {
        let mut known = wants(&choice, wanted);
        known.record = record.as_ref();
        for (generation, id) in stored {
            let of = record.as_ref().map_or(wanted, |record| match &record.reshard {
                Some(reshard) if reshard.generation == generation => reshard.count.get(),
                _ => record.count.get(),
            });
            known = known.stored(generation, of, [id % of]);
        }
        for (of, id) in given {
            known = known.given(of, [id % of]);
        }
        let first = first_layout(&known);
        let active: BTreeSet<ShardKey> = first.active.iter().copied().collect();
        prop_assert_eq!(active.len(), first.active.len(), "each once");
        for residue in 0..27_720_u64 {
            let guild_id = residue << 22;
            let is_ours = match &choice {
                LayoutChoice::Some { ids, count } => ids.contains(&count.owner_of(guild_id)),
                _ => true,
            };
            prop_assert_eq!(active.contains(&first.layouts.owner_of(guild_id)), is_ours, "{}", residue);
        }
        for warming in &first.warming {
            prop_assert!(known.stored.contains_key(warming) && !active.contains(warming));
            prop_assert_eq!(first.layouts.role(*warming), Role::Warming);
        }
        let newest = first.layouts.newest().count;
        prop_assert_eq!(first.wanted, Some(count(wanted)).filter(|wanted| *wanted != newest));
        if let Some(record) = record.filter(|record| record.refused) {
            let current = first.layouts.current;
            prop_assert!(current.generation != 5 || current.count.get() == wanted, "{:?}", record);
        }
    }
}
