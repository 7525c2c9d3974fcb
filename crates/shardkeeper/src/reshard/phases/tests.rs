//! Transcripts of the phases. `model.rs` has every interleaving.

use shardkeeper_proto::ShardId;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A reshard of two groups, at this time since its beginning.
struct Bench {
    reshard: Reshard,
    start: Instant,
    now: Instant,
}

fn bench(policy: ReshardPolicy) -> Bench {
    let group = |residue| ReshardGroup { residue, old: vec![ShardId(residue)], new: vec![ShardId(residue)] };
    let start = Instant::now();
    let spans = Spans::new(&policy, 5 * SECOND);
    let reshard = Reshard::new(vec![group(0), group(1)], BTreeSet::new(), spans, start);
    Bench { reshard, start, now: start }
}

const GOOD: Reading =
    Reading { affordable: true, in_voice: false, warm: true, level: true, frozen: false, drained: true };
const WARMING: Reading = Reading { warm: false, ..GOOD };

impl Bench {
    /// What an input leads to, each action as a word and the number of its group or save.
    fn input(&mut self, input: Input) -> Vec<String> {
        self.reshard.input(self.now, input).iter().map(word).collect()
    }

    fn look(&mut self, reading: Reading) -> Vec<String> {
        self.input(Input::Look(reading))
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = self.start + Duration::from_secs(seconds);
        self
    }

    /// Goes on until the group under way is warm.
    fn warm(&mut self) {
        assert!(self.look(WARMING)[1].starts_with("warm "));
        assert!(self.look(GOOD)[0].ends_with(" is warm"));
    }

    fn cut_over(&mut self) {
        self.warm();
        assert!(self.look(GOOD)[0].starts_with("cut over "));
        assert!(self.input(Input::CutOver(true))[0].starts_with("save "));
    }
}

fn word(action: &Action) -> String {
    match action {
        Action::Warm(group) => format!("warm {}", group.residue),
        Action::CutOver(group) => format!("cut over {}", group.residue),
        Action::Save(number) => format!("save {number}"),
        Action::StopOld(group) => format!("stop old {}", group.residue),
        Action::StopNew(group) => format!("stop new {}", group.residue),
        Action::Announce(group, phase) => format!("{} is {phase}", group.residue),
        Action::Halt(why) => format!("halt: {why}"),
        Action::Finish => "finish".to_owned(),
        Action::Withdraw(why) => format!("withdraw: {why}"),
    }
}

#[test]
fn groups_take_their_turns_from_warming_to_retired() {
    let mut bench = bench(ReshardPolicy::on());
    assert_eq!(bench.reshard.phase(), None);
    assert_eq!(bench.look(WARMING), ["0 is warming", "warm 0"]);
    assert!(bench.look(WARMING).is_empty());
    assert_eq!(bench.reshard.phase(), Some(GroupPhase::Warming));
    assert_eq!(bench.look(GOOD), ["0 is warm"]);
    assert!(bench.look(Reading { level: false, ..GOOD }).is_empty());
    assert_eq!(bench.look(WARMING), ["0 is warming"], "a new shard lost its session");
    assert_eq!(bench.look(GOOD), ["0 is warm"]);
    assert_eq!(bench.look(GOOD), ["cut over 0"]);
    assert!(bench.input(Input::CutOver(false)).is_empty(), "an old shard is behind");
    assert_eq!(bench.look(GOOD), ["cut over 0"]);
    assert_eq!(bench.input(Input::CutOver(true)), ["save 1", "0 is draining"]);
    assert!(bench.look(GOOD).is_empty(), "not saved");
    assert!(bench.input(Input::Saved(0)).is_empty() && bench.look(GOOD).is_empty(), "an earlier save");
    assert!(bench.input(Input::Saved(1)).is_empty());
    assert!(bench.look(Reading { drained: false, ..GOOD }).is_empty());
    assert_eq!(bench.look(GOOD), ["stop old 0"]);
    assert!(bench.input(Input::Gone(Side::New)).is_empty());
    assert_eq!(bench.input(Input::Gone(Side::Old)), ["0 is retired"]);
    bench.cut_over();
    bench.input(Input::Saved(2));
    assert_eq!(bench.look(GOOD), ["stop old 1"]);
    assert_eq!(bench.input(Input::Gone(Side::Old)), ["1 is retired", "finish", "save 3"]);
    assert!(bench.reshard.is_over() && bench.look(GOOD).is_empty());
}

#[test]
fn gw_246_new_shards_that_cannot_start_are_closed_and_the_old_ones_stay() {
    let policy = ReshardPolicy::on();
    for (why, text) in [
        (Some(Input::Refused(CloseCode(4010))), "discord refuses a new shard: 4010"),
        (Some(Input::Abort), "aborted on request"),
        (None, "the new shards were not ready in time"),
    ] {
        let mut bench = bench(policy);
        bench.look(WARMING);
        // Deadline of the group, and the pace of its Identifies.
        let late = 600 + 5;
        assert!(bench.at(late - 1).look(WARMING).is_empty());
        let withdrawn = match why {
            Some(input) => bench.input(input),
            None => bench.at(late).look(WARMING),
        };
        assert_eq!(withdrawn, ["stop new 0", "0 is withdrawn"]);
        assert!(bench.look(GOOD).is_empty());
        let over = bench.input(Input::Gone(Side::New));
        assert!(over[0].starts_with("withdraw: ") && over[0].contains(text), "{over:?}");
        assert!(bench.reshard.is_over());
    }
}

#[test]
fn a_failure_after_the_first_group_stands_half_way_until_it_is_resumed() {
    let mut bench = bench(ReshardPolicy::on());
    bench.cut_over();
    bench.input(Input::Saved(1));
    bench.look(GOOD);
    bench.input(Input::Gone(Side::Old));
    bench.look(WARMING);
    assert_eq!(bench.input(Input::Refused(CloseCode(4014))), ["stop new 1", "1 is withdrawn"]);
    assert!(bench.input(Input::Gone(Side::New))[0].starts_with("halt: discord refuses"));
    assert_eq!(bench.reshard.halted(), Some(HaltReason::Refused(CloseCode(4014))));
    assert!(bench.look(GOOD).is_empty());
    bench.input(Input::Resume);
    assert_eq!(bench.look(WARMING), ["1 is warming", "warm 1"]);
}

#[test]
fn an_abort_after_the_cut_over_ends_with_the_group() {
    let mut bench = bench(ReshardPolicy::on());
    bench.cut_over();
    assert!(bench.input(Input::Abort).is_empty(), "the group has moved");
    assert!(bench.input(Input::Refused(CloseCode(4011))).is_empty());
    bench.input(Input::Saved(1));
    assert_eq!(bench.look(GOOD), ["stop old 0"]);
    assert_eq!(bench.input(Input::Gone(Side::Old)), ["0 is retired", "halt: aborted on request"]);
}

#[test]
fn old_shards_outstay_the_deadline_of_draining_only_for_the_store() {
    let mut bench = bench(ReshardPolicy::on());
    bench.cut_over();
    let busy = Reading { drained: false, ..GOOD };
    assert!(bench.at(3600).look(busy).is_empty(), "the store has not got it");
    bench.input(Input::Saved(1));
    assert_eq!(bench.look(busy), ["stop old 0"]);
}

#[test]
fn no_group_begins_while_paused_or_without_its_identifies() {
    let mut bench = bench(ReshardPolicy { pause: 60 * SECOND, ..ReshardPolicy::on() });
    bench.input(Input::Pause);
    assert!(bench.reshard.is_paused() && bench.look(GOOD).is_empty());
    bench.input(Input::Resume);
    assert!(bench.look(Reading { affordable: false, ..GOOD }).is_empty());
    bench.cut_over();
    bench.input(Input::Saved(1));
    bench.look(GOOD);
    bench.input(Input::Gone(Side::Old));
    assert!(bench.at(59).look(GOOD).is_empty());
    assert_eq!(bench.at(60).look(GOOD), ["1 is warming", "warm 1"]);
}

#[test]
fn gw_244_voice_is_waited_for_or_put_last() {
    let voice = Reading { in_voice: true, ..GOOD };
    let mut moving = bench(ReshardPolicy::on());
    moving.warm();
    assert!(moving.at(299).look(voice).is_empty());
    assert_eq!(moving.at(300).look(voice), ["cut over 0"]);
    let mut later = bench(ReshardPolicy { voice: VoicePolicy::Later, ..ReshardPolicy::on() });
    assert!(later.look(voice).is_empty());
    assert_eq!(later.look(GOOD), ["1 is warming", "warm 1"]);
    // Once warm, a group does not wait: its Identifies are spent.
    assert_eq!(later.look(GOOD), ["1 is warm"]);
    assert_eq!(later.look(voice), ["cut over 1"]);
}

#[test]
fn a_group_waits_for_voice_beyond_its_deadline_and_for_nothing_else() {
    let behind = Reading { level: false, ..GOOD };
    for (in_voice, late) in [(false, 605), (true, 905)] {
        let mut bench = bench(ReshardPolicy::on());
        bench.warm();
        let reading = Reading { in_voice, ..behind };
        assert!(bench.at(late - 1).look(reading).is_empty());
        assert_eq!(bench.at(late).look(reading), ["stop new 0", "0 is withdrawn"]);
    }
}

#[test]
fn a_group_whose_old_shard_lost_its_session_is_cut_over_at_once_even_if_it_is_given_up() {
    let frozen = Reading { level: false, in_voice: true, frozen: true, ..GOOD };
    let mut bench = bench(ReshardPolicy::on());
    bench.warm();
    assert_eq!(bench.look(frozen), ["cut over 0"]);
    assert!(bench.input(Input::CutOver(false)).is_empty(), "another old shard is behind");
    assert_eq!(bench.input(Input::Abort), ["cut over 0"]);
    assert!(bench.input(Input::CutOver(false)).is_empty() && bench.input(Input::Abort).is_empty());
    assert_eq!(bench.look(frozen), ["cut over 0"]);
    let mut gone = Bench { reshard: bench.reshard.clone(), ..bench };
    assert_eq!(bench.input(Input::CutOver(true)), ["save 1", "0 is draining"]);
    bench.input(Input::Saved(1));
    bench.look(GOOD);
    assert_eq!(bench.input(Input::Gone(Side::Old)), ["0 is retired", "halt: aborted on request"]);
    // The new side is lost as well.
    assert_eq!(gone.look(Reading { warm: false, ..frozen }), ["stop new 0", "0 is withdrawn"]);
    assert!(gone.input(Input::Gone(Side::New))[0].starts_with("withdraw: aborted"));
}
