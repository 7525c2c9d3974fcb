//! Overlaps with real publishers and subscriptions: first step by step, then on several threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::*;
use crate::dispatch::{
    Event, InheritedSpill, Publisher, Subscription, SubscriptionOptions, Topic, Watermark,
};
use crate::layout::ShardKey;

/// The events of the true stream, as Discord would write them.
fn message(id: u64, guild: u64) -> (&'static str, String) {
    ("MESSAGE_CREATE", format!(r#"{{"id":"{id}","guild_id":"{guild}"}}"#))
}

fn presence(status: u64, guild: u64) -> (&'static str, String) {
    ("PRESENCE_UPDATE", format!(r#"{{"status":{status},"guild_id":"{guild}"}}"#))
}

fn ready(guilds: &[u64]) -> (&'static str, String) {
    let guilds: Vec<String> =
        guilds.iter().map(|id| format!(r#"{{"id":"{id}","unavailable":true}}"#)).collect();
    ("READY", format!(r#"{{"guilds":[{}]}}"#, guilds.join(",")))
}

fn count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

fn side(shards: impl IntoIterator<Item = u32>, of: u32) -> OverlapSide {
    let shards = shards.into_iter().map(ShardId).collect();
    OverlapSide { shards, count: count(of), intents: Intents::all() }
}

/// One shard of a side: its publisher, and what outlives it.
struct Shard {
    id: ShardId,
    publisher: Publisher,
    watermark: Arc<Watermark>,
    slot: Arc<OverlapSlot>,
    spill: Arc<InheritedSpill>,
    sequence: u64,
}

impl Shard {
    fn new(hub: &Arc<Hub>, id: u32, generation: u32, part: Option<(&Arc<Overlap>, Side)>) -> Self {
        let (slot, watermark, spill): (Arc<OverlapSlot>, Arc<Watermark>, Arc<InheritedSpill>) =
            Default::default();
        if let Some((overlap, side)) = part {
            slot.attach(hub, overlap, side);
        }
        let publisher = Publisher::new(
            Arc::clone(hub),
            ShardKey { id: ShardId(id), generation },
            Arc::clone(&watermark),
            Arc::clone(&spill),
            Arc::clone(&slot),
        );
        Self { id: ShardId(id), publisher, watermark, slot, spill, sequence: 0 }
    }

    fn key(&self) -> ShardKey {
        ShardKey { id: self.id, generation: 1 }
    }

    fn publish(&mut self, (name, data): &(&'static str, String)) {
        self.sequence += 1;
        self.publish_as(name, data, self.sequence, false);
    }

    fn publish_as(&mut self, name: &str, data: &str, sequence: u64, replayed: bool) {
        let text = format!(r#"{{"t":"{name}","s":{sequence},"op":0,"d":{data}}}"#);
        self.publisher.publish(&Envelope::split(text.as_bytes()).unwrap(), sequence, replayed);
    }

    /// Begins a session.
    fn ready(&mut self, guilds: &[u64]) {
        self.sequence = 0;
        self.publisher.session_changed(true);
        self.watermark.restart(1);
        self.publish(&ready(guilds));
    }

    fn release(&mut self) {
        let caught_up = self.publisher.catch_up().now_or_never();
        // Between two batches it gives way once.
        if caught_up.is_none() && self.publisher.is_behind() {
            let _ = self.publisher.catch_up().now_or_never();
        }
    }
}

/// One old and two new shards, and a subscription to everything.
struct Rig {
    hub: Arc<Hub>,
    overlap: Arc<Overlap>,
    old: Shard,
    new: [Shard; 2],
    heard: Subscription,
    now: Instant,
}

/// A guild of new shard 0, and one of new shard 1.
const A: u64 = 2 << 22;
const B: u64 = 3 << 22;

impl Rig {
    fn with(limits: OverlapLimits, topic: Topic, capacity: usize) -> Self {
        let hub = Arc::new(Hub::default());
        let heard = hub.subscribe(topic, SubscriptionOptions { capacity, ..SubscriptionOptions::default() });
        let overlap = Overlap::new(side([0], 1), side([0, 1], 2), limits);
        let old = Shard::new(&hub, 0, 1, None);
        old.slot.attach(&hub, &overlap, Side::Old);
        let new = [0, 1].map(|id| Shard::new(&hub, id, 2, Some((&overlap, Side::New))));
        Self { hub, overlap, old, new, heard, now: Instant::now() }
    }

    fn new() -> Self {
        Self::with(OverlapLimits::default(), Topic::all(), 1024)
    }

    /// Lets every shard begin its session and answer every question, until the cut-over is worth while.
    fn warm_up(&mut self) {
        self.new[0].ready(&[]);
        self.new[1].ready(&[]);
        self.settle();
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let report = self.overlap.report(self.now);
            if report.phase == OverlapPhase::Ready {
                return;
            }
            for (side, shard, number) in report.probes {
                match side {
                    Side::Old => self.old.publisher.probed(number),
                    Side::New => self.new[shard.0 as usize].publisher.probed(number),
                }
            }
            self.now += Duration::from_millis(250);
        }
        panic!("it never becomes ready: {:?}", self.overlap.report(self.now));
    }

    fn cut(&mut self) {
        self.overlap.cut_over(self.now).unwrap();
        self.new.iter_mut().for_each(Shard::release);
    }

    /// What was delivered since the last call: its content, and whether it is marked as a repetition.
    fn heard(&mut self) -> Vec<(String, bool)> {
        let mut heard = Vec::new();
        while let Some(Some(delivery)) = self.heard.next().now_or_never() {
            if let Some(dispatch) = delivery.dispatch() {
                let data = String::from_utf8(dispatch.data().to_vec()).unwrap();
                heard.push((data, dispatch.may_repeat()));
            }
        }
        heard
    }
}

fn unmarked(events: &[(&'static str, String)]) -> Vec<(String, bool)> {
    events.iter().map(|(_, data)| (data.clone(), false)).collect()
}

#[test]
fn gw_232_233_241_each_event_is_delivered_once_whoever_is_ahead() {
    let mut rig = Rig::new();
    rig.warm_up();
    let events: Vec<_> = (0..6).map(|id| message(id, if id % 2 == 0 { A } else { B })).collect();
    // The old side is ahead in A, the new side in B.
    for event in [0, 1, 2, 4].map(|at| &events[at]) {
        rig.old.publish(event);
    }
    rig.new[0].publish(&events[0]);
    for event in [1, 3, 5].map(|at| &events[at]) {
        rig.new[1].publish(event);
    }
    assert_eq!(rig.heard(), unmarked(&[0, 1, 2, 4].map(|at| events[at].clone())));
    rig.cut();
    assert_eq!(rig.heard(), unmarked(&[3, 5].map(|at| events[at].clone())));
    // What is still under way on either side.
    rig.old.publish(&events[3]);
    rig.old.publish(&events[5]);
    rig.new[0].publish(&events[2]);
    rig.new[0].publish(&events[4]);
    assert_eq!(rig.heard(), []);
    assert!(rig.overlap.is_over(rig.now), "nothing is left to compare");
    rig.new[0].publish(&message(7, A));
    assert_eq!(rig.heard().len(), 1);
    let counts = rig.overlap.report(rig.now).counts;
    assert_eq!(counts, OverlapCounts { matched: 4, released: 2, guessed: 0, dropped: 0 });
    // After that the shards are like any other.
    for shard in [&rig.old, &rig.new[0], &rig.new[1]] {
        shard.slot.detach(&rig.hub);
    }
    rig.new[1].publish(&message(8, B));
    rig.old.publish(&message(9, A));
    assert_eq!(rig.heard().len(), 2);
}

#[test]
fn the_cut_over_waits_until_both_sides_have_everything() {
    let mut rig = Rig::new();
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Behind(ShardId(0))), "nobody has reported");
    rig.old.publish(&message(1, A));
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Warming));
    rig.new[0].ready(&[]);
    rig.new[1].ready(&[B]);
    assert_eq!(rig.overlap.report(rig.now).warm, BTreeSet::from([ShardId(0)]));
    rig.new[1].publish(&("GUILD_CREATE", format!(r#"{{"id":"{B}","unavailable":false}}"#)));
    let report = rig.overlap.report(rig.now);
    assert_eq!(report.phase, OverlapPhase::Probing);
    let asked: Vec<_> = report.probes.iter().map(|(side, shard, _)| (*side, shard.0)).collect();
    assert_eq!(asked, [(Side::New, 0), (Side::New, 1)]);
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Probing));
    rig.settle();
    rig.cut();
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Over));
}

#[tokio::test(start_paused = true)]
async fn a_lossless_subscription_that_does_not_read_delays_the_cut_over() {
    let mut rig = Rig::with(OverlapLimits::default(), Topic::all(), 1);
    rig.warm_up();
    let events: Vec<_> = (0..4).map(|id| message(id, A)).collect();
    rig.old.publish(&events[0]);
    rig.old.publish(&events[1]);
    for event in &events {
        rig.new[0].publish(event);
    }
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Behind(ShardId(0))));
    assert_eq!(rig.heard(), unmarked(&events[..1]));
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Behind(ShardId(0))), "not delivered yet");
    rig.old.release();
    rig.cut();
    let mut heard = rig.heard();
    for _ in 0..2 {
        rig.new[0].release();
        heard.extend(rig.heard());
    }
    assert_eq!(heard, unmarked(&events[1..]), "in order over both sides");
}

#[test]
fn a_full_window_pauses_the_new_side_until_the_old_side_has_caught_up() {
    let limits = OverlapLimits { held_events: 2, ..OverlapLimits::default() };
    let mut rig = Rig::with(limits, Topic::all(), 1024);
    rig.warm_up();
    rig.new[0].publish(&message(1, A));
    assert!(!rig.new[0].publisher.is_held_up());
    rig.new[0].publish(&message(2, A));
    assert!(rig.new[0].publisher.is_held_up() && rig.new[1].publisher.is_held_up());
    assert!(!rig.old.publisher.is_held_up());
    let mut waits = Box::pin(rig.new[0].publisher.attend(true));
    assert!((&mut waits).now_or_never().is_none());
    rig.old.publish(&message(1, A));
    assert!((&mut waits).now_or_never().is_some(), "it may read on");
    drop(waits);
    assert!(!rig.new[0].publisher.is_held_up());
    let report = rig.overlap.report(rig.now);
    assert_eq!((report.held_events, report.held_bytes), (1, message(2, A).1.len()));
    // The other bound is bytes.
    let limits = OverlapLimits { held_bytes: 40, ..OverlapLimits::default() };
    let mut rig = Rig::with(limits, Topic::all(), 1024);
    rig.warm_up();
    rig.new[0].publish(&message(1, A));
    rig.new[0].publish(&message(2, A));
    assert!(rig.new[0].publisher.is_held_up());
}

#[test]
fn an_event_that_nobody_wants_is_held_without_its_data() {
    let mut rig = Rig::with(OverlapLimits::default(), Topic::events([crate::EventName::TypingStart]), 8);
    rig.warm_up();
    rig.new[0].publish(&message(1, A));
    let report = rig.overlap.report(rig.now);
    assert_eq!((report.held_events, report.held_bytes), (1, 0));
    rig.cut();
    assert_eq!(rig.heard(), []);
    assert_eq!(rig.new[0].watermark.acknowledged(), 2, "it is passed in its turn");
}

#[test]
fn the_load_of_new_shards_is_for_those_who_ask_for_it() {
    let mut rig = Rig::with(OverlapLimits::default(), Topic::all().with_warming(), 1024);
    let mut other = rig.hub.subscribe(Topic::all(), SubscriptionOptions::default());
    rig.new[0].ready(&[A, A + 1]);
    let created = |id: u64| ("GUILD_CREATE", format!(r#"{{"id":"{id}","unavailable":false}}"#));
    rig.new[0].publish(&created(A));
    rig.new[0].publish(&("VOICE_SERVER_UPDATE", format!(r#"{{"guild_id":"{A}"}}"#)));
    let mut marks = Vec::new();
    while let Some(Some(delivery)) = rig.heard.next().now_or_never() {
        let dispatch = delivery.dispatch().unwrap();
        marks.push((dispatch.name().to_owned(), dispatch.is_warming(), dispatch.generation()));
        delivery.abandon();
    }
    let load = ["READY", "GUILD_CREATE"].map(|name| (name.to_owned(), true, 2));
    assert_eq!(marks, load);
    assert!(other.next().now_or_never().is_none());
    assert_eq!(rig.new[0].watermark.acknowledged(), 1, "nothing is owed, and nothing is passed");
    // A guild that joins is no part of it.
    rig.new[0].publish(&("GUILD_CREATE", format!(r#"{{"id":"{}"}}"#, A + 2)));
    assert_eq!(rig.overlap.report(rig.now).held_events, 1);
    // One guild was in an outage for longer than anybody waits. It is no join, and everybody hears of it.
    rig.new[1].ready(&[]);
    rig.now += Duration::from_secs(16);
    rig.settle();
    rig.cut();
    rig.new[0].publish(&created(A + 1));
    let mut heard = Vec::new();
    while let Some(Some(delivery)) = other.next().now_or_never() {
        heard.push(delivery.dispatch().unwrap().is_warming());
    }
    assert_eq!(heard, [false, true], "the join, and then the late one");
}

#[test]
fn answers_to_a_session_are_published_by_the_side_that_asked() {
    let mut rig = Rig::new();
    rig.warm_up();
    rig.cut();
    for name in ["GUILD_MEMBERS_CHUNK", "SOUNDBOARD_SOUNDS", "CHANNEL_INFO", "VOICE_SERVER_UPDATE"] {
        let answer = (name, format!(r#"{{"guild_id":"{A}"}}"#));
        rig.old.publish(&answer);
        rig.new[0].publish(&answer);
        assert_eq!(rig.heard().len(), 2, "{name}");
    }
}

#[test]
fn what_the_new_side_holds_is_acknowledged_only_after_its_release() {
    let mut rig = Rig::new();
    rig.warm_up();
    rig.new[0].publish(&message(1, A));
    rig.new[0].publish(&message(2, A));
    assert_eq!(rig.new[0].watermark.acknowledged(), 1, "a resume begins behind READY");
    rig.cut();
    let first = rig.heard.next().now_or_never().flatten().unwrap();
    assert_eq!(rig.new[0].watermark.acknowledged(), 1);
    drop(first);
    assert_eq!(rig.new[0].watermark.acknowledged(), 2);
    rig.heard();
    assert_eq!(rig.new[0].watermark.acknowledged(), 3);
}

#[test]
fn what_the_old_side_has_delivered_is_not_replayed_to_the_next_process() {
    let mut rig = Rig::new();
    rig.warm_up();
    for id in 1..4 {
        rig.old.publish(&message(id, A));
        rig.new[0].publish(&message(id, A));
    }
    assert_eq!(rig.new[0].watermark.acknowledged(), 1);
    rig.overlap.cut_over(rig.now).unwrap();
    // Nothing is left to publish, and no other event comes.
    assert!(rig.new[0].publisher.attend(false).now_or_never().is_some());
    assert_eq!(rig.new[0].watermark.acknowledged(), 4);
    assert!(rig.new[0].publisher.attend(false).now_or_never().is_none(), "once");
}

#[test]
fn later_events_of_a_new_shard_wait_behind_those_that_were_held() {
    let mut rig = Rig::new();
    rig.warm_up();
    let events: Vec<_> = (0..200).map(|id| message(id, A)).collect();
    for event in &events[..150] {
        rig.new[0].publish(event);
    }
    rig.overlap.cut_over(rig.now).unwrap();
    for event in &events[150..] {
        rig.new[0].publish(event);
    }
    while rig.new[0].publisher.is_behind() {
        rig.new[0].release();
    }
    assert_eq!(rig.heard(), unmarked(&events));
}

#[test]
fn a_crash_of_a_driver_records_nothing_twice() {
    let mut rig = Rig::new();
    rig.warm_up();
    let (name, data) = presence(1, A);
    for shard in [&mut rig.old, &mut rig.new[0]] {
        shard.publish(&message(1, A));
        shard.publish(&(name, data.clone()));
        // The next driver resumes from an earlier sequence number.
        let again = shard.sequence;
        shard.publish_as(name, &data, again, true);
    }
    assert_eq!(rig.heard().len(), 3, "the old side's subscribers may miss it, so they get it again");
    rig.old.publish(&message(2, A));
    rig.new[0].publish(&message(2, A));
    rig.cut();
    assert_eq!(rig.heard().len(), 1);
    let counts = rig.overlap.report(rig.now).counts;
    assert_eq!((counts.matched, counts.guessed), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_old_publisher_that_crashed_is_behind_until_the_next_one_has_caught_up() {
    let mut rig = Rig::with(OverlapLimits::default(), Topic::all(), 1);
    rig.warm_up();
    rig.old.publish(&message(1, A));
    rig.old.publish(&message(2, A));
    let (hub, slot) = (Arc::clone(&rig.hub), Arc::clone(&rig.old.slot));
    let (watermark, spill) = (Arc::clone(&rig.old.watermark), Arc::clone(&rig.old.spill));
    // As the manager does: the next one is made while the last one may still run.
    let next = Publisher::new(hub, rig.old.key(), watermark, spill, slot);
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Behind(ShardId(0))));
    drop(std::mem::replace(&mut rig.old.publisher, next));
    rig.old.publisher.inherit();
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Behind(ShardId(0))));
    assert_eq!(rig.heard().len(), 1);
    rig.old.release();
    rig.cut();
}

#[test]
fn an_old_session_that_is_lost_leaves_its_guilds_to_the_new_side() {
    let mut rig = Rig::new();
    rig.warm_up();
    rig.old.publish(&message(1, A));
    rig.old.publisher.session_changed(false);
    assert_eq!(rig.overlap.report(rig.now).frozen, BTreeSet::from([ShardId(0)]));
    for id in 1..4 {
        rig.new[0].publish(&message(id, A));
    }
    // The old shard identifies again, and brings what the new side has as well.
    rig.old.publisher.session_changed(true);
    rig.old.publish(&message(3, A));
    assert_eq!(rig.heard(), unmarked(&[message(1, A)]));
    rig.cut();
    assert_eq!(rig.heard(), unmarked(&[message(2, A), message(3, A)]));
}

#[test]
fn an_old_shard_that_lost_its_session_at_once_does_not_hold_up_the_cut_over() {
    let mut rig = Rig::new();
    rig.new[0].ready(&[]);
    rig.new[1].ready(&[]);
    // Nothing was published since the overlap began, and nobody has asked the shard anything.
    rig.old.publisher.session_changed(false);
    rig.new[0].publish(&message(1, A));
    rig.settle();
    rig.cut();
    assert_eq!(rig.heard(), unmarked(&[message(1, A)]));
}

#[test]
fn that_a_lost_old_session_delivers_nothing_proves_nothing() {
    let mut rig = Rig::new();
    rig.new[0].ready(&[]);
    rig.new[1].ready(&[]);
    // The new session begins behind the first of three equal events; the old one never brings the third.
    rig.old.publish(&presence(1, A));
    rig.old.publish(&presence(1, A));
    rig.new[0].publish(&presence(1, A));
    rig.old.publisher.session_changed(false);
    rig.new[0].publish(&presence(1, A));
    rig.settle();
    rig.cut();
    let marks: Vec<bool> = rig.heard().into_iter().map(|(_, marked)| marked).collect();
    assert_eq!(marks, [false, false, true, true], "delivered rather than lost");
}

#[test]
fn an_old_session_that_is_lost_before_the_new_side_is_there_leaves_doubt_and_no_gap() {
    let mut rig = Rig::new();
    rig.new[0].ready(&[]);
    rig.old.publish(&message(1, A));
    rig.new[0].publish(&message(1, A));
    rig.new[0].publish(&message(2, A));
    rig.old.publisher.session_changed(false);
    rig.old.publisher.session_changed(true);
    rig.new[1].ready(&[]);
    rig.old.publish(&message(3, A));
    rig.new[0].publish(&message(3, A));
    rig.settle();
    rig.cut();
    let heard = rig.heard();
    let marked: Vec<_> = heard.iter().filter(|(_, marked)| *marked).map(|(data, _)| data.clone()).collect();
    assert_eq!(marked, [message(2, A).1], "nobody knows whether the old side had delivered it: {heard:?}");
    assert_eq!(heard.len(), 3);
}

#[test]
fn a_new_session_that_is_lost_starts_over() {
    let mut rig = Rig::new();
    rig.warm_up();
    rig.new[0].publish(&message(1, A));
    rig.new[1].publish(&message(2, B));
    rig.new[0].publisher.session_changed(false);
    let report = rig.overlap.report(rig.now);
    assert_eq!((report.phase, report.held_events, report.counts.dropped), (OverlapPhase::Warming, 1, 1));
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Warming));
    rig.old.publish(&message(1, A));
    rig.old.publish(&message(2, B));
    rig.new[0].ready(&[]);
    rig.old.publish(&message(3, A));
    rig.new[0].publish(&message(3, A));
    rig.settle();
    rig.cut();
    rig.new[0].publish(&message(4, A));
    let expected: Vec<_> = [(1, A), (2, B), (3, A), (4, A)].map(|(id, guild)| message(id, guild)).into();
    assert_eq!(
        rig.heard().into_iter().filter(|(data, _)| !data.contains("guilds")).collect::<Vec<_>>(),
        unmarked(&expected)
    );
}

#[test]
fn a_withdrawn_overlap_leaves_everything_to_the_old_side() {
    let mut rig = Rig::new();
    rig.warm_up();
    rig.new[0].publish(&message(1, A));
    rig.overlap.withdraw();
    rig.new[0].publish(&message(2, A));
    rig.new.iter_mut().for_each(Shard::release);
    assert_eq!(rig.heard(), []);
    rig.old.publish(&message(1, A));
    assert_eq!(rig.heard().len(), 1);
    assert_eq!(rig.overlap.cut_over(rig.now), Err(NotYet::Over));
    let report = rig.overlap.report(rig.now);
    assert_eq!((report.phase, report.held_events, report.held_bytes), (OverlapPhase::Withdrawn, 0, 0));
    assert_eq!(report.counts.dropped, 1);
}

#[test]
fn after_the_tail_window_nothing_is_compared_any_more() {
    let mut rig = Rig::new();
    rig.warm_up();
    rig.old.publish(&presence(1, A));
    rig.cut();
    assert!(!rig.overlap.is_over(rig.now));
    rig.new[0].publish(&presence(1, A));
    assert_eq!(rig.heard().iter().map(|(_, marked)| *marked).collect::<Vec<_>>(), [false, true]);
    rig.now += OverlapLimits::default().tail;
    assert!(rig.overlap.is_over(rig.now));
    rig.new[0].publish(&presence(1, A));
    assert_eq!(rig.heard(), unmarked(&[presence(1, A)]));
}

#[test]
fn sessions_that_another_process_began_are_released_with_marks() {
    let mut rig = Rig::new();
    // No READY: the session is resumed, and replays what came since its READY.
    let created = |marked: &str| ("GUILD_CREATE", format!(r#"{{"id":"{A}"{marked}}}"#));
    rig.new[0].publish_as("GUILD_CREATE", &created(r#","unavailable":false"#).1, 5, true);
    rig.new[0].publish_as("MESSAGE_CREATE", &message(1, A).1, 6, true);
    rig.new[0].publish_as("RESUMED", "{}", 7, false);
    rig.new[1].publish_as("RESUMED", "{}", 7, false);
    rig.settle();
    rig.cut();
    assert_eq!(rig.heard(), [(message(1, A).1, true)], "the process before may have delivered it");
}

#[test]
fn the_memory_of_a_hostile_stream_has_a_bound() {
    let limits = OverlapLimits { fingerprints: 1000, ..OverlapLimits::default() };
    let mut window = Window::<()>::new(&side([0], 1), &side([0], 1), limits);
    let event = |guild: u64, hash: u64| identity::Event {
        stream: identity::StreamKey::Guild(guild),
        print: identity::Print { hash, unique: false },
        arrival: None,
        common: true,
    };
    // Many guilds, and then one guild with many events.
    for number in 0..100_000 {
        assert_eq!(
            window.old(ShardId(0), &event(number << 22, number), (number, false)),
            OldVerdict::Publish
        );
    }
    for number in 0..100_000 {
        window.old(ShardId(0), &event(0, number), (number, false));
    }
    assert!(window.prints() <= 1000 + 9, "{}", window.prints());
    // Of a guild without a record nothing can be decided: delivered and marked, and not held.
    let now = Instant::now();
    window.new_ready(now, ShardId(0), Vec::new(), || ((), 0));
    window.new_event(now, ShardId(0), &event(99_999 << 22, 1), (2, false), || ((), 0));
    assert_eq!(window.take(ShardId(0)).map(|(_, marks)| marks.repeats), Some(true));
}

/// A round on several threads: Discord sends one stream of events of several guilds, two sessions receive it at
/// their own pace, and the cut-over comes at any moment.
#[test]
fn on_several_threads_nothing_is_lost_or_doubled_and_each_guild_stays_in_order() {
    let rounds = 150 * std::env::var("RACES_REPEAT").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let mut all = OverlapCounts::default();
    for seed in 0..rounds {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1 + (seed % 4) as usize)
            .enable_all()
            .build()
            .unwrap();
        let counts = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), race(seed)).await.expect("the round hangs")
        });
        all.matched += counts.matched;
        all.released += counts.released;
        all.guessed += counts.guessed;
    }
    assert!(all.matched > 0 && all.released + all.guessed > 0, "the rounds show nothing: {all:?}");
}

/// What Discord sends: a stream of events, each with its guild, and how many of them were sent.
struct Sent {
    truth: Vec<(u64, (&'static str, String))>,
    sent: AtomicUsize,
}

/// One shard of the race: receives what is sent from `at` on, of the guilds that are its own, and answers
/// questions.
async fn drive(
    mut shard: Shard,
    discord: Arc<Sent>,
    (of, mut at): (ShardCount, usize),
    mut questions: mpsc::Receiver<u64>,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let own = shard.id;
    // In most rounds the old side is lazy, and in some the new one, so that the other one is far ahead of it.
    let is_old = of == count(1);
    let laziness = if is_old { [0, 6, 40] } else { [0, 0, 6] }[random.usize(0..3)];
    let mut asks = true;
    loop {
        // As a driver does: nothing is read while a subscription is behind.
        let behind = shard.publisher.is_behind();
        tokio::select! {
            biased;
            question = questions.recv(), if asks && !behind => {
                // An acknowledgement comes behind everything that was sent before the question.
                let until = discord.sent.load(Ordering::Acquire);
                while at < until {
                    let (guild, event) = &discord.truth[at];
                    if of.owner_of(*guild) == own {
                        shard.publish(event);
                    }
                    at += 1;
                    while shard.publisher.is_behind() {
                        shard.publisher.attend(false).await;
                    }
                }
                match question {
                    Some(number) => shard.publisher.probed(number),
                    None => asks = false,
                }
            }
            () = shard.publisher.attend(false), if behind || asks => {}
            () = tokio::task::yield_now(), if !behind && asks => {}
        }
        if !asks && !shard.publisher.is_behind() {
            return;
        }
        if random.usize(0..=laziness) > 0 {
            continue;
        }
        for _ in 0..random.usize(0..4) {
            if at < discord.sent.load(Ordering::Acquire) && !shard.publisher.is_behind() {
                let (guild, event) = &discord.truth[at];
                if of.owner_of(*guild) == own {
                    shard.publish(event);
                }
                at += 1;
            }
        }
    }
}

async fn race(seed: u64) -> OverlapCounts {
    let mut random = fastrand::Rng::with_seed(seed);
    let repeats = random.bool();
    let truth: Vec<_> = (0..random.u64(50..400))
        .map(|id| {
            let guild = random.u64(0..6) << 22;
            let plain = repeats && random.bool();
            // Equal presences, told apart by nothing; the test finds them again by their number.
            (guild, if plain { presence(random.u64(0..2), guild) } else { message(id, guild) })
        })
        .collect();
    let discord = Arc::new(Sent { truth, sent: AtomicUsize::new(0) });
    let hub = Arc::new(Hub::default());
    let options = SubscriptionOptions { capacity: random.usize(1..40), ..SubscriptionOptions::default() };
    let mut heard = hub.subscribe(Topic::all(), options);
    let overlap = Overlap::new(side([0], 1), side([0, 1], 2), OverlapLimits::default());
    let old = Shard::new(&hub, 0, 1, None);
    old.slot.attach(&hub, &overlap, Side::Old);
    let (mut ask, mut drivers) = (BTreeMap::new(), Vec::new());
    let mut start = |shard: Shard, side: Side, of: u32, at: usize| {
        let (sender, questions) = mpsc::channel(8);
        ask.insert((side, shard.id), sender);
        let seed = seed ^ u64::from(shard.id.0) << 20 ^ u64::from(side == Side::Old) << 30;
        drivers.push(tokio::spawn(drive(shard, Arc::clone(&discord), (count(of), at), questions, seed)));
    };
    start(old, Side::Old, 1, 0);
    // The sessions of the new side begin somewhere in the stream.
    for id in 0..2 {
        let at = discord.sent.fetch_add(random.usize(0..10), Ordering::AcqRel);
        let mut shard = Shard::new(&hub, id, 2, Some((&overlap, Side::New)));
        shard.ready(&[]);
        start(shard, Side::New, 2, at);
    }
    let total = discord.truth.len();
    let reader = tokio::spawn({
        let stops = random.bool();
        let mut random = fastrand::Rng::with_seed(seed);
        async move {
            let mut all = Vec::new();
            while let Some(delivery) = heard.next().await {
                if let Event::Dispatch(dispatch) = delivery.into_event() {
                    all.push((String::from_utf8(dispatch.data().to_vec()).unwrap(), dispatch.may_repeat()));
                }
                if stops && random.usize(0..8) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            all
        }
    });
    let (mut now, mut is_cut) = (Instant::now(), false);
    let cut_from = random.usize(0..total);
    let mut over = false;
    while !over {
        let sent = discord.sent.load(Ordering::Acquire);
        discord.sent.store((sent + random.usize(0..3)).min(total), Ordering::Release);
        now += Duration::from_millis(250);
        for (side, shard, number) in overlap.report(now).probes {
            let _ = ask[&(side, shard)].try_send(number);
        }
        if !is_cut && sent >= cut_from {
            is_cut = overlap.cut_over(now).is_ok();
        }
        if is_cut && sent == total {
            // The tail window is over long after everything was received.
            ask.clear();
            for driver in std::mem::take(&mut drivers) {
                driver.await.unwrap();
            }
            now += OverlapLimits::default().tail;
            over = overlap.is_over(now);
            assert!(over);
        }
        tokio::task::yield_now().await;
    }
    let counts = overlap.report(now).counts;
    hub.close();
    let all = reader.await.unwrap();
    check(seed, &discord.truth, &all, repeats);
    assert_eq!(counts.guessed, all.iter().filter(|(_, marked)| *marked).count() as u64, "seed {seed}");
    counts
}

/// Each guild's unmarked deliveries and as many marked ones as needed make up its true stream.
fn check(seed: u64, truth: &[(u64, (&'static str, String))], heard: &[(String, bool)], repeats: bool) {
    let of = |data: &str| -> u64 {
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        data["guild_id"].as_str().map_or(0, |id| id.parse().unwrap())
    };
    for guild in (0..6).map(|guild| guild << 22) {
        let sent: Vec<&String> =
            truth.iter().filter(|(of, _)| *of == guild).map(|(_, (_, data))| data).collect();
        let heard: Vec<&(String, bool)> = heard.iter().filter(|(data, _)| of(data) == guild).collect();
        let (mut expected, mut marked) = (sent.iter().peekable(), Vec::new());
        // Unmarked events are new and in order; what is missing between two of them was delivered with a mark.
        let mut missing: BTreeMap<&String, i64> = BTreeMap::new();
        for (data, is_marked) in &heard {
            if *is_marked {
                marked.push(data);
                continue;
            }
            loop {
                match expected.next() {
                    Some(next) if *next == data => break,
                    Some(next) => *missing.entry(next).or_default() += 1,
                    None => panic!("seed {seed}: {data} came twice or out of order"),
                }
            }
        }
        for next in expected {
            *missing.entry(next).or_default() += 1;
        }
        for data in &marked {
            *missing.entry(data).or_default() -= 1;
        }
        assert!(missing.values().all(|count| *count <= 0), "seed {seed}: lost {missing:?}");
        assert!(repeats || marked.is_empty(), "seed {seed}: marks where no two events are equal: {marked:?}");
    }
}
