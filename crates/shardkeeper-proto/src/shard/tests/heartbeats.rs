//! Heartbeats: their beat, their acknowledgements, and how a dead connection is found.

use super::*;
use crate::close::ours;

#[test]
fn gw_110_first_heartbeats_spread_over_the_whole_interval() {
    for random in [0.0, 0.25, 0.999] {
        let mut bench = Bench::new();
        bench.random = random;
        bench.connect().hello();
        let wait = INTERVAL.mul_f64(random);
        assert_eq!(bench.shard.heartbeat.as_ref().unwrap().next_at() - bench.now, wait);
    }
}

#[test]
fn gw_111_112_heartbeats_keep_their_beat_and_carry_the_sequence() {
    let mut bench = Bench::new();
    bench.connect().hello();
    let start = bench.now;
    bench.clear().sleep();
    assert_eq!(bench.sent(), [r#"{"op":1,"d":null}"#], "nothing received yet");
    // GW-064: Hello gives the interval in milliseconds.
    assert_eq!(bench.now - start, INTERVAL / 2);
    bench.ack().permit().ready().dispatch(251, "TYPING_START").clear();
    for beat in 1..4 {
        // A wake-up that is late does not shift the ones after it.
        bench.now = bench.wakes_at.unwrap() + Duration::from_millis(300);
        bench.feed(Input::Timeout);
        bench.ack();
        assert_eq!(bench.wakes_at.unwrap() - start, INTERVAL / 2 + INTERVAL * (beat + 1));
    }
    // GW-019: heartbeats carry the latest `s`. GW-118: there is one per interval, not more.
    assert_eq!(bench.sent(), [r#"{"op":1,"d":251}"#; 3]);
}

#[test]
fn gw_106_the_interval_is_that_of_each_hello() {
    let mut bench = Bench::new();
    bench.up().closed(None).reconnect().feed(Input::Connected);
    bench.random = 0.999;
    bench.receive(r#"{"op":10,"d":{"heartbeat_interval":10000}}"#);
    assert!(bench.wait() < Duration::from_secs(10) && bench.wait() > Duration::from_secs(9));
    bench.clear().sleep().ack();
    assert_eq!(bench.sent().len(), 1);
    assert_eq!(bench.wait(), Duration::from_secs(10));
}

#[test]
fn a_hello_is_read_however_it_is_written() {
    for (data, interval) in [
        (r#"{"heartbeat_interval":41250.5}"#, Some(41_250.5)),
        (r#"{"heartbeat_interval":"41250"}"#, Some(41_250.0)),
        (r#"{"x":[{}],"heartbeat_interval":4.125e4,"_trace":null}"#, Some(41_250.0)),
        (r#"{"heartbeat_interval":"soon"}"#, None),
        (r#"{"heartbeat_interval":null}"#, None),
        (r#"{"heartbeat_interval":0}"#, None),
        (r#"{"heartbeat_interval":1e300}"#, None),
        ("{}", None),
        ("null", None),
    ] {
        let mut bench = Bench::new();
        bench.connect().clear();
        bench.receive(&format!(r#"{{"op":10,"d":{data}}}"#));
        let reported = bench.out.iter().find_map(|out| match out {
            Output::Changed(Change::Hello { heartbeat_interval }) => {
                Some(heartbeat_interval.as_secs_f64() * 1000.0)
            }
            _ => None,
        });
        assert_eq!(reported, interval, "{data}");
        assert_eq!(bench.close_code(), interval.is_none().then_some(ours::UNREADABLE), "{data}");
    }
}

#[test]
fn gw_123_latency_is_measured() {
    let mut bench = Bench::new();
    bench.up();
    assert_eq!(bench.shard.latency(), None);
    bench.sleep();
    bench.now += Duration::from_millis(80);
    bench.ack();
    assert_eq!(bench.shard.latency(), Some(Duration::from_millis(80)));
}

#[test]
fn gw_114_099_a_missing_ack_closes_at_the_next_tick_and_resumes() {
    let mut bench = Bench::new();
    // GW-065: op 11 acknowledges; `settle` only lasts because of it.
    bench.up().dispatch(42, "X").settle().sleep();
    bench.clear().sleep();
    assert!(bench.sent().is_empty(), "the due heartbeat is not sent");
    assert_eq!(bench.close_code(), Some(ours::ZOMBIED));
    // GW-130: a missed ACK leads to a Resume.
    assert_eq!(bench.disconnected(), (Reason::Zombied, Next::Resume { after: Duration::ZERO }));
    // GW-102: the peer never answers the close.
    assert_eq!(bench.wait(), Duration::from_secs(3));
    bench.clear().sleep();
    assert!(bench.has(|out| matches!(out, Output::Disconnect)));
    bench.sleep();
    // GW-132: Resume goes to `resume_gateway_url`. GW-012: the query is added again.
    assert_eq!(bench.url(), Some("wss://resume.example/?v=10&encoding=json"));
    bench.clear().feed(Input::Connected).hello();
    // GW-108: Resume follows Hello without a heartbeat before. GW-060: op 6 has token, session_id and seq.
    assert_eq!(bench.sent(), [RESUME_42]);
    assert!(!bench.has(|out| matches!(out, Output::ClaimPermit(_) | Output::Enqueue(_))), "GW-175");
    bench.clear().dispatch(43, "X").dispatch(44, "X").dispatch(45, "RESUMED");
    assert!(bench.has(|out| matches!(out, Output::Changed(Change::Resumed { replayed: 2 }))));
    assert_eq!(bench.delivered(), [43, 44, 45]);
    assert!(bench.shard.is_ready());
    // GW-112: the heartbeat of the resumed connection carries on.
    bench.clear().sleep();
    assert_eq!(bench.sent(), [r#"{"op":1,"d":45}"#]);
}

#[test]
fn gw_115_116_a_requested_heartbeat_is_sent_at_once_and_is_no_zombie_check() {
    let mut bench = Bench::new();
    bench.up().dispatch(7, "X").sleep().ack().clear();
    // Just before the tick, so that its ack cannot be there in time.
    bench.now = bench.wakes_at.unwrap() - Duration::from_millis(10);
    // GW-056: a received op 1 is answered with a heartbeat at once.
    bench.receive(r#"{"op":1,"d":null}"#);
    assert_eq!(bench.sent(), [r#"{"op":1,"d":7}"#], "GW-121: op 1, not op 11");
    bench.sleep();
    assert_eq!(bench.close_code(), None);
    // And while a periodic one is outstanding.
    // GW-117: the ACK of a requested heartbeat counts as an ACK.
    bench.receive(r#"{"op":1}"#).ack();
    assert_eq!(bench.sent().len(), 3);
    bench.sleep();
    assert_eq!(bench.close_code(), None);
}

#[test]
fn a_peer_that_asks_for_heartbeats_without_end_gets_no_more_than_the_limit() {
    let mut bench = Bench::new();
    bench.up();
    for _ in 0..500 {
        bench.receive(r#"{"op":1}"#);
    }
    // Identify counts too (GW-156); two places stay for the periodic ones.
    // GW-120: the periodic heartbeats always find room in the limit.
    assert_eq!(bench.sent().len(), 120 - 2 - 1);
    assert!(bench.wakes_at.is_some());
}

#[test]
fn a_shard_that_does_not_read_is_not_zombied() {
    let mut bench = Bench::new();
    bench.up().sleep().ack().clear().feed(Input::ReadingPaused(true));
    for beats in 1..=5 {
        bench.sleep();
        assert_eq!(bench.sent().len(), beats, "heartbeats go on");
    }
    bench.now += Duration::from_secs(1);
    bench.feed(Input::ReadingPaused(false)).sleep();
    assert_eq!(bench.close_code(), None, "the acks of the pause are still on their way up");
    bench.sleep();
    assert_eq!(bench.close_code(), Some(ours::ZOMBIED));
}

#[test]
fn gw_114_a_heartbeat_that_went_out_late_is_owed_at_the_next_tick_all_the_same() {
    let mut bench = Bench::new();
    bench.up();
    bench.now = bench.wakes_at.unwrap() + Duration::from_millis(3);
    bench.feed(Input::Timeout);
    assert!(bench.sent().iter().any(|text| text.starts_with(r#"{"op":1,"#)));
    bench.clear().sleep();
    assert!(bench.sent().is_empty() && bench.close_code().is_some(), "{:?}", bench.out);
}

#[test]
fn gw_114_a_zombie_is_found_in_time_after_a_stall_of_reading() {
    let mut bench = Bench::new();
    bench.up().sleep();
    // Nobody reads for three intervals, while an acknowledgement is owed; then it is found.
    bench.feed(Input::ReadingPaused(true)).sleep().sleep().sleep();
    bench.feed(Input::ReadingPaused(false)).ack().sleep().ack();
    // What was not read then is no reason to wait longer now.
    bench.sleep();
    assert_eq!(bench.close_code(), None);
    bench.sleep();
    assert_eq!(bench.close_code(), Some(ours::ZOMBIED));
}

#[test]
fn gw_114_a_shard_that_reads_with_pauses_is_zombied_all_the_same() {
    let mut bench = Bench::new();
    bench.up().sleep().ack().clear();
    let mut beats = 0;
    while bench.close_code().is_none() {
        // Within each interval nobody reads for ten seconds.
        bench.feed(Input::ReadingPaused(true));
        bench.now += Duration::from_secs(10);
        bench.feed(Input::ReadingPaused(false)).sleep();
        beats += 1;
        assert!(beats < 4, "a whole interval of reading without an acknowledgement is enough");
    }
    assert_eq!((bench.close_code(), beats), (Some(ours::ZOMBIED), 3));
}

#[test]
fn after_the_machine_slept_one_heartbeat_is_sent_and_not_all_that_were_missed() {
    let mut bench = Bench::new();
    bench.up().sleep().ack().clear();
    bench.now += INTERVAL * 10 + Duration::from_secs(1);
    bench.feed(Input::Timeout).ack();
    assert_eq!(bench.sent().len(), 1);
    assert_eq!(bench.wait(), INTERVAL);
}

#[test]
fn a_probe_is_answered_by_the_ack_of_a_heartbeat_sent_after_it() {
    let mut bench = Bench::new();
    let probed = |bench: &Bench| bench.has(|out| matches!(out, Output::Probed(1)));
    // One heartbeat is still unacknowledged when the probe comes.
    bench.up().dispatch(7, "X").sleep().clear().feed(Input::Probe(1));
    assert_eq!(bench.sent(), [r#"{"op":1,"d":7}"#], "at once");
    bench.ack();
    assert!(!probed(&bench), "that answers the heartbeat before it");
    bench.dispatch(8, "X").ack();
    assert!(probed(&bench));
    bench.clear().sleep().ack();
    assert!(!probed(&bench), "reported once");
    // Acknowledgements that answer nothing do not count for the next one.
    bench.ack().ack().clear().feed(Input::Probe(2)).feed(Input::Probe(3));
    assert_eq!(bench.sent().len(), 2, "another probe replaces it, with a heartbeat of its own");
    bench.ack();
    assert!(!bench.has(|out| matches!(out, Output::Probed(_))));
    bench.ack();
    assert!(bench.has(|out| matches!(out, Output::Probed(3))));
}

#[test]
fn a_probe_that_lost_its_ack_is_answered_when_it_is_repeated() {
    let mut bench = Bench::new();
    bench.up().feed(Input::Probe(5)).clear();
    // The peer leaves out one acknowledgement; each further heartbeat brings its own.
    bench.sleep().ack();
    assert!(bench.has(|out| matches!(out, Output::Probed(5))), "the next heartbeat proves as much");
    bench.clear().feed(Input::Probe(6)).ack();
    assert!(!bench.has(|out| matches!(out, Output::Probed(_))), "two are unanswered");
    bench.feed(Input::Probe(6)).ack();
    assert!(bench.has(|out| matches!(out, Output::Probed(6))));
}

#[test]
fn a_probe_needs_a_session_and_ends_with_its_connection() {
    let mut bench = Bench::new();
    bench.identify().clear().feed(Input::Probe(1));
    assert!(bench.sent().is_empty(), "not before READY");
    bench.ready().sleep().ack().clear().feed(Input::Probe(2)).closed(None).reconnect();
    bench.feed(Input::Connected).hello().dispatch(9, "RESUMED").clear().sleep().ack();
    assert!(!bench.has(|out| matches!(out, Output::Probed(_))));
}

#[test]
fn probes_keep_to_the_limit_and_leave_the_zombie_check_as_it_is() {
    let mut bench = Bench::new();
    bench.up();
    for number in 0..500 {
        bench.feed(Input::Probe(number));
    }
    assert_eq!(bench.sent().len(), 120 - 2 - 1, "the same as for heartbeats that Discord requests");
    bench.clear();
    // None of them is acknowledged, and none counts: the periodic one does, at its next tick.
    while bench.close_code().is_none() {
        bench.sleep();
    }
    assert_eq!(bench.close_code(), Some(ours::ZOMBIED));
}
