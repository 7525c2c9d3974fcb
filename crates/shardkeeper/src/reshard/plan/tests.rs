//! Tests of the planner.

use proptest::prelude::*;

use super::*;

fn count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

fn all(of: u32) -> BTreeSet<ShardId> {
    count(of).ids().collect()
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn allowance(left: u32, max_concurrency: u32) -> Allowance {
    let hour = Duration::from_secs(3600);
    let window = Duration::from_secs(5);
    Allowance { total: 1000, left, resets_after: hour, floor: 10, max_concurrency, window }
}

fn situation(owned: &BTreeSet<ShardId>, of: u32) -> Situation<'_> {
    Situation {
        generation: 3,
        count: count(of),
        half_way: None,
        running: false,
        owned,
        recommended: of,
        allowance: allowance(1000, 1),
    }
}

fn planned(from: u32, to: u32) -> ReshardPlan {
    let target = if from == to { ReshardTarget::Same } else { ReshardTarget::Count(count(to)) };
    let owned = all(from);
    let situation = Situation { recommended: 1, ..situation(&owned, from) };
    plan(target, &situation, &ReshardPolicy::on()).unwrap()
}

fn rejected(target: u32, situation: &Situation<'_>, policy: &ReshardPolicy) -> ReshardRejected {
    plan(ReshardTarget::Count(count(target)), situation, policy).unwrap_err()
}

fn ids(ids: &[u32]) -> Vec<ShardId> {
    ids.iter().copied().map(ShardId).collect()
}

proptest! {
    /// For any two counts, the groups divide both layouts, and a guild of an old shard belongs to a new shard
    /// of the same group.
    #[test]
    fn groups_cover_exactly_the_same_guilds(from in 1_u32..=64, to in 1_u32..=64, guilds in proptest::collection::vec(any::<u64>(), 50)) {
        let plan = planned(from, to);
        let number = gcd(from, to);
        prop_assert_eq!(plan.groups.len(), number as usize);
        prop_assert!(plan.split_groups.is_empty());
        for (side, of) in [(0, from), (1, to)] {
            let shards = |group: &ReshardGroup| if side == 0 { group.old.clone() } else { group.new.clone() };
            let sizes: BTreeSet<usize> = plan.groups.iter().map(|group| shards(group).len()).collect();
            prop_assert_eq!(sizes, BTreeSet::from([(of / number) as usize]));
            let mut every: Vec<ShardId> = plan.groups.iter().flat_map(shards).collect();
            every.sort();
            prop_assert_eq!(every, count(of).ids().collect::<Vec<_>>());
        }
        for guild in guilds {
            let of = |owner: ShardId| owner.0 % number;
            prop_assert_eq!(of(count(from).owner_of(guild)), of(count(to).owner_of(guild)));
            let group = &plan.groups[of(count(from).owner_of(guild)) as usize];
            prop_assert!(group.old.contains(&count(from).owner_of(guild)));
            prop_assert!(group.new.contains(&count(to).owner_of(guild)));
        }
        prop_assert_eq!(plan.forecast.identifies, to);
        prop_assert_eq!(plan.forecast.extra_shards, (to / number) as usize);
    }

    /// A process plans exactly the groups of which it runs every old shard, and names those that it runs in
    /// part. After all processes are done, each new shard runs once.
    #[test]
    fn processes_with_slices_reshard_what_they_own_whole(
        from in 1_u32..=32, to in 1_u32..=64, processes in proptest::collection::vec(0_u8..3, 32)
    ) {
        let (number, mut run_twice) = (gcd(from, to), Vec::new());
        for process in 0..3 {
            let owned: BTreeSet<ShardId> =
                count(from).ids().filter(|shard| processes[shard.0 as usize] == process).collect();
            let situation = Situation { recommended: 1, ..situation(&owned, from) };
            let target = if from == to { ReshardTarget::Same } else { ReshardTarget::Count(count(to)) };
            let (groups, split) = match plan(target, &situation, &ReshardPolicy::on()) {
                Ok(plan) => (plan.groups, plan.split_groups.iter().map(|group| group.residue).collect()),
                Err(ReshardRejected::NoWholeGroup { residues, .. }) => (Vec::new(), residues),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            for residue in 0..number {
                let of_group = |shard: &&ShardId| shard.0 % number == residue;
                let here = owned.iter().filter(of_group).count();
                let whole = here == (from / number) as usize;
                prop_assert_eq!(groups.iter().any(|group| group.residue == residue), whole);
                prop_assert_eq!(split.contains(&residue), here > 0 && !whole);
            }
            run_twice.extend(groups.into_iter().flat_map(|group| group.new));
        }
        let once: BTreeSet<ShardId> = run_twice.iter().copied().collect();
        prop_assert_eq!(once.len(), run_twice.len());
    }
}

#[test]
fn doubling_merging_and_coprime_counts_have_these_groups() {
    let groups = |from, to| -> Vec<(Vec<ShardId>, Vec<ShardId>)> {
        planned(from, to).groups.into_iter().map(|group| (group.old, group.new)).collect()
    };
    assert_eq!(groups(2, 4), [(ids(&[0]), ids(&[0, 2])), (ids(&[1]), ids(&[1, 3]))]);
    assert_eq!(groups(4, 2), [(ids(&[0, 2]), ids(&[0])), (ids(&[1, 3]), ids(&[1]))]);
    assert_eq!(groups(4, 6), [(ids(&[0, 2]), ids(&[0, 2, 4])), (ids(&[1, 3]), ids(&[1, 3, 5]))]);
    assert_eq!(groups(2, 3), [(ids(&[0, 1]), ids(&[0, 1, 2]))]);
    assert_eq!(groups(2, 2), [(ids(&[0]), ids(&[0])), (ids(&[1]), ids(&[1]))]);
}

#[test]
fn gw_237_a_count_has_to_hold_the_guilds_and_be_a_multiple_for_large_bots() {
    let owned = all(16);
    let situation = Situation { recommended: 20, ..situation(&owned, 16) };
    let policy = ReshardPolicy { large_bot_multiple: 16, ..ReshardPolicy::on() };
    let plan = plan(ReshardTarget::Recommended, &situation, &policy).unwrap();
    assert_eq!(plan.next_count, count(32));
    assert_eq!(plan.adjustments, [Adjustment::RoundedUp { from: 20, multiple: 16 }]);
    // 20,000 guilds need 8 shards of 2500.
    let rejection = rejected(7, &situation, &ReshardPolicy::on());
    assert_eq!(rejection, ReshardRejected::TooFewShards { count: count(7), least: 8, recommended: 20 });
    assert!(super::plan(ReshardTarget::Count(count(8)), &situation, &ReshardPolicy::on()).is_ok());
    let limit = MAX_SHARDS;
    for (count, multiple) in [(limit + 1, 1), (limit, 3), (u32::MAX, 16)] {
        let policy = ReshardPolicy { large_bot_multiple: multiple, ..policy };
        assert_eq!(rejected(count, &situation, &policy), ReshardRejected::TooManyShards { count, limit });
    }
}

#[test]
fn a_reshard_that_changes_nothing_or_comes_too_soon_is_rejected_with_a_remedy() {
    let owned = all(8);
    let base = situation(&owned, 8);
    let policy = ReshardPolicy::on();
    let rejection = rejected(8, &base, &policy);
    assert_eq!(rejection, ReshardRejected::NothingToDo { count: count(8) });
    assert!(rejection.to_string().contains("ReshardTarget::Same"));
    let moved = BTreeSet::from([0, 3]);
    let half_way = Some(HalfWay { generation: 4, count: count(12), moved: &moved });
    let running = Situation { running: true, half_way, ..base };
    assert_eq!(
        rejected(12, &running, &policy),
        ReshardRejected::AlreadyRunning { count: count(8), next: count(12) }
    );
    let still = Situation { half_way, ..base };
    let rejection = rejected(16, &still, &policy);
    assert_eq!(rejection, ReshardRejected::HalfWay { count: count(8), next: count(12), moved: 2 });
    assert!(rejection.to_string().contains("resume_reshard"));
}

#[test]
fn a_reshard_that_stands_half_way_goes_on_with_the_groups_that_are_left() {
    let owned = all(8);
    let moved = BTreeSet::from([0, 3]);
    let half_way = Some(HalfWay { generation: 7, count: count(12), moved: &moved });
    let situation = Situation { half_way, ..situation(&owned, 8) };
    let plan = plan(ReshardTarget::Count(count(12)), &situation, &ReshardPolicy::on()).unwrap();
    let residues: Vec<u32> = plan.groups.iter().map(|group| group.residue).collect();
    assert_eq!((residues, plan.next_generation), (vec![1, 2], 7));
    assert_eq!(plan.adjustments, [Adjustment::Continued { groups: 2 }]);
    assert_eq!(plan.forecast.identifies, 6);
    let moved = BTreeSet::from([0, 1, 2, 3]);
    let half_way = Some(HalfWay { generation: 7, count: count(12), moved: &moved });
    let done = Situation { half_way, ..situation };
    let plan = super::plan(ReshardTarget::Count(count(12)), &done, &ReshardPolicy::on()).unwrap();
    assert!(plan.groups.is_empty() && plan.forecast.takes.is_zero());
}

#[test]
fn gw_238_a_budget_that_does_not_cover_a_group_and_the_reserve_is_waited_for_or_refused() {
    let owned = all(100);
    // 200 Identifies in groups of two; 240 are left and 100 stay in reserve.
    let situation = Situation { allowance: allowance(240, 1), ..situation(&owned, 100) };
    let target = ReshardTarget::Count(count(200));
    let forecast = plan(target, &situation, &ReshardPolicy::on()).unwrap().forecast;
    let hour = Duration::from_secs(3600);
    // 70 groups of 18 s at once, the rest when the hour is over.
    let (at_once, rest) = (Duration::from_secs(70 * 18), Duration::from_secs(30 * 18));
    assert_eq!((forecast.identifies, forecast.left, forecast.reserve), (200, 240, 100));
    assert_eq!((forecast.waits_for_budget, forecast.takes), (hour - at_once, hour + rest));
    let unspread = ReshardPolicy { spread: false, ..ReshardPolicy::on() };
    let rejection = plan(target, &situation, &unspread).unwrap_err();
    let ReshardRejected::Budget { needed: 200, left: 240, reserve: 100, .. } = rejection else {
        panic!("{rejection}")
    };
    // One group of everything never fits: 101 + 100 > 200.
    let small = Allowance { total: 200, left: 200, ..allowance(200, 1) };
    let situation = Situation { allowance: small, recommended: 100, ..situation };
    assert!(matches!(
        rejected(101, &situation, &ReshardPolicy::on()),
        ReshardRejected::Budget { needed: 101, .. }
    ));
}

#[test]
fn a_reserve_is_never_less_than_the_floor_nor_more_than_half() {
    for (reserve, total, floor, expected) in [(100, 1000, 10, 100), (5, 1000, 10, 10), (100, 50, 10, 25)] {
        let policy = ReshardPolicy { reserve, ..ReshardPolicy::on() };
        assert_eq!(Allowance { total, floor, ..allowance(total, 1) }.reserve(&policy), expected);
    }
}

#[test]
fn a_forecast_knows_the_keys_of_max_concurrency_and_the_pauses() {
    let takes = |from, to, max_concurrency, pause| {
        let owned = all(from);
        let allowance = allowance(1000, max_concurrency);
        let situation = Situation { allowance, recommended: 1, ..situation(&owned, from) };
        let policy = ReshardPolicy { pause: Duration::from_secs(pause), ..ReshardPolicy::on() };
        plan(ReshardTarget::Count(count(to)), &situation, &policy).unwrap().forecast.takes.as_secs()
    };
    let (per_group, window) = (13, 5);
    assert_eq!(takes(4, 8, 1, 0), 4 * (per_group + window));
    // Shards r and r + 4 have different keys of 8, and the same key of 4.
    assert_eq!(takes(4, 8, 8, 0), 4 * per_group);
    assert_eq!(takes(4, 8, 4, 0), 4 * (per_group + window));
    assert_eq!(takes(5, 7, 1, 0), per_group + 6 * window);
    assert_eq!(takes(5, 7, 4, 0), per_group + window);
    assert_eq!(takes(4, 8, 8, 60), 4 * per_group + 3 * 60);
    // A budget of a thousand per day: the first thousand after an hour at the latest, then one day each.
    let owned = all(1500);
    let situation = Situation { allowance: allowance(100, 16), ..situation(&owned, 1500) };
    let forecast = plan(ReshardTarget::Same, &situation, &ReshardPolicy::on()).unwrap().forecast;
    assert!((DAY..2 * DAY).contains(&forecast.takes), "{:?}", forecast.takes);
    assert_eq!(forecast.extra_shards, 1);
}

#[test]
fn a_plan_can_be_read_before_it_runs() {
    let owned = BTreeSet::from_iter(ids(&[0, 1, 2, 4]));
    let situation = Situation { recommended: 6, allowance: allowance(104, 1), ..situation(&owned, 6) };
    let policy = ReshardPolicy { large_bot_multiple: 3, ..ReshardPolicy::on() };
    let plan = plan(ReshardTarget::Count(count(7)), &situation, &policy).unwrap();
    assert_eq!(
        plan.to_string(),
        "reshard 6 → 9 shards (generation 3 → 4)
  rounded up from 7 to a multiple of 3, as large bots need (4010)
  1 groups of 2 → 3 shards, one after another
  3 identifies of 104, 100 stay in reserve
  about 23 s
  at most 3 shards more than now at any time
  left out: group 0, since this process runs shards 0 of it and not 3
  left out: group 2, since this process runs shards 2 of it and not 5"
    );
}
