//! Gateways that differ from Discord's, and payloads that cannot be read.

use super::*;
use crate::close::ours;

#[test]
fn five_unreadable_payloads_in_a_row_end_the_connection() {
    let mut bench = Bench::new();
    bench.up();
    for _ in 0..4 {
        bench.feed(Input::Malformed);
    }
    bench.dispatch(2, "X").clear();
    for _ in 0..4 {
        bench.feed(Input::Malformed);
    }
    assert_eq!(bench.close_code(), None);
    bench.feed(Input::Malformed);
    assert_eq!(bench.close_code(), Some(ours::UNREADABLE));
}

#[test]
fn unreadable_payloads_of_the_connection_before_do_not_count() {
    let mut bench = Bench::new();
    bench.up();
    for _ in 0..3 {
        for _ in 0..4 {
            bench.feed(Input::Malformed);
        }
        assert_eq!(bench.close_code(), None);
        bench.closed(None).reconnect().feed(Input::Connected).hello();
    }
}

#[test]
fn a_ready_or_hello_that_cannot_be_read_ends_the_connection() {
    for hello in [
        r#"{"op":10}"#,
        r#"{"op":10,"d":{"heartbeat_interval":0}}"#,
        r#"{"op":10,"d":{"heartbeat_interval":-5}}"#,
        r#"{"op":10,"d":{"heartbeat_interval":1e300}}"#,
    ] {
        let mut bench = Bench::new();
        bench.connect().receive(hello);
        assert_eq!(bench.close_code(), Some(ours::UNREADABLE), "{hello}");
    }
    let mut bench = Bench::new();
    bench.identify().dispatch(1, "READY");
    assert_eq!(bench.close_code(), Some(ours::UNREADABLE));
}

#[test]
fn gw_021_022_unknown_opcodes_and_events() {
    let mut bench = Bench::new();
    bench.up().receive(r#"{"op":99,"d":{}}"#).receive(r#"{"op":2,"d":{}}"#);
    assert!(bench.out.is_empty());
    // GW-055: op 0 is a dispatch. GW-273: bots receive undocumented events too.
    bench.receive(r#"{"op":0,"s":9,"t":"WHAT_IS_THIS","d":[1]}"#);
    assert_eq!(bench.delivered(), [9]);
    assert_eq!(bench.shard.session().unwrap().sequence, 9);
}

#[test]
fn sequences_come_from_dispatches_alone_and_never_run_back() {
    let mut bench = Bench::new();
    bench.up().dispatch(9, "X").receive(r#"{"op":11,"s":50}"#).dispatch(4, "X");
    // GW-019: the latest `s` is kept.
    assert_eq!(bench.shard.session().unwrap().sequence, 9);
}

#[test]
fn a_resumed_without_a_number_ends_the_replay() {
    for s in ["", r#""s":null,"#, r#""s":"x","#, r#""s":-1,"#] {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.resume().clear();
        bench.dispatch(43, "A").receive(&format!(r#"{{"t":"RESUMED",{s}"op":0,"d":{{}}}}"#));
        assert!(bench.shard.is_ready(), "{s}");
        bench.dispatch(44, "A");
        assert_eq!(deliveries(&bench), [(43, true), (43, false), (44, false)], "{s}");
        assert_eq!(bench.shard.session().unwrap().sequence, 44);
    }
}

#[test]
fn a_ready_without_a_number_begins_a_session() {
    let mut bench = Bench::new();
    bench.identify().clear();
    bench.receive(&format!(
        r#"{{"t":"READY","op":0,"d":{{"session_id":"S","resume_gateway_url":"{RESUME_URL}"}}}}"#
    ));
    assert!(bench.shard.is_ready());
    bench.dispatch(1, "A");
    assert_eq!(deliveries(&bench), [(0, false), (1, false)]);
}

#[test]
fn dispatches_without_a_number_are_delivered_in_their_place() {
    let unnumbered = r#"{"t":"A","s":null,"op":0,"d":{}}"#;
    let mut bench = Bench::new();
    bench.up().dispatch(7, "A").receive(unnumbered).receive(unnumbered).dispatch(8, "A");
    assert_eq!(deliveries(&bench), [(7, false), (7, false), (7, false), (8, false)]);
    let reported = bench.out.iter().filter(|out| matches!(out, Output::Odd(Oddity::Unnumbered))).count();
    assert_eq!(reported, 1);
    // Also in a replay, where nothing tells whether it came before.
    bench.clear().closed(None).reconnect().feed(Input::Connected).hello().clear();
    bench.dispatch(8, "A").receive(unnumbered).dispatch(9, "A").dispatch(9, "RESUMED");
    assert_eq!(deliveries(&bench), [(8, true), (9, true), (9, false)]);
}

/// The shard, which is on its way, identifies, and READY is that of shard 0 of 1.
fn identify_and_become_another_shard(bench: &mut Bench) {
    bench.reconnect().feed(Input::Connected).hello().permit().clear();
    bench.receive(r#"{"t":"READY","s":1,"op":0,"d":{"session_id":"S","shard":[0,1]}}"#);
    assert_eq!(bench.disconnected().0, Reason::OtherShard);
}

#[test]
fn gw_129_a_gateway_that_answers_as_another_shard_is_asked_twice_and_no_more() {
    let mut bench = Bench::new();
    bench.feed(Input::Start);
    for _ in 0..2 {
        identify_and_become_another_shard(&mut bench);
        if !bench.shard.is_ended() {
            bench.closed(Some(4904));
        }
    }
    let refused =
        |out: &Output| matches!(out, Output::Changed(Change::Refused(refusal)) if refusal.code.0 == 4010);
    assert!(bench.has(refused));
    let detail = bench.out.iter().find_map(|out| match out {
        Output::Changed(Change::Disconnected { detail, .. }) => detail.as_deref(),
        _ => None,
    });
    assert_eq!(detail, Some("READY is of shard [0, 1], not of [3, 16]"));
}

#[test]
fn mix_ups_of_shards_count_only_in_a_row() {
    let mut bench = Bench::new();
    bench.feed(Input::Start);
    for _ in 0..3 {
        identify_and_become_another_shard(&mut bench);
        assert!(!bench.shard.is_ended());
        bench.closed(Some(4904)).reconnect().feed(Input::Connected).hello().permit().ready();
        assert!(bench.shard.is_ready());
        bench.receive(r#"{"op":9,"d":false}"#).closed(None);
    }
}

#[test]
fn gw_129_a_ready_for_another_shard_is_not_taken() {
    for (shard, ready) in [("[3,16]", true), ("[4,16]", false), ("[3,17]", false)] {
        let mut bench = Bench::new();
        bench.identify();
        bench.receive(&format!(
            r#"{{"t":"READY","s":1,"op":0,"d":{{"session_id":"S","resume_gateway_url":"{RESUME_URL}","shard":{shard}}}}}"#
        ));
        assert_eq!(bench.shard.is_ready(), ready, "{shard}");
    }
}

#[test]
fn a_shard_in_ready_that_cannot_be_read_is_put_up_with() {
    for (shard, odd) in [
        ("null", false),
        (r#"["3","16"]"#, false),
        ("[3.0,16.0]", false),
        ("[]", true),
        ("[3]", true),
        ("[3,16,0]", true),
        (r#""3""#, true),
        (r#"["x",16]"#, true),
        ("{}", true),
    ] {
        let mut bench = Bench::new();
        bench.identify();
        bench.receive(&format!(r#"{{"t":"READY","s":1,"op":0,"d":{{"session_id":"S","shard":{shard}}}}}"#));
        assert!(bench.shard.is_ready(), "{shard}");
        assert_eq!(bench.has(|out| matches!(out, Output::Odd(Oddity::UnreadableShard))), odd, "{shard}");
    }
}
