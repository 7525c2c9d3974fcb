//! Op 9: what it ends, and the waits after it.

use super::*;
use crate::close::ours;

#[test]
fn gw_147_149_op_9_true_waits_one_to_five_seconds_and_resumes() {
    for (random, seconds) in [(0.0, 1), (0.5, 3), (1.0, 5)] {
        let mut bench = Bench::new();
        bench.up().settle().dispatch(42, "X").clear();
        bench.random = random;
        bench.receive(r#"{"op":9,"d":true}"#);
        // GW-063: `d` says whether the session may be resumed. GW-130: Resume after op 9 `true`.
        assert_eq!(bench.close_code(), Some(ours::INVALID_SESSION), "GW-151");
        let after = Duration::from_secs(seconds);
        assert_eq!(
            bench.disconnected(),
            (Reason::InvalidSession { resumable: true }, Next::Resume { after })
        );
        bench.closed(None);
        assert_eq!(bench.wait(), after);
        bench.reconnect().feed(Input::Connected).clear().hello();
        assert_eq!(bench.sent(), [RESUME_42]);
    }
}

#[test]
fn gw_148_140_125_op_9_false_forgets_everything_and_identifies() {
    for during_resume in [false, true] {
        let mut bench = Bench::new();
        bench.up().settle().dispatch(42, "X").clear();
        if during_resume {
            bench.closed(None).reconnect().feed(Input::Connected).hello().clear();
        }
        bench.receive(r#"{"op":9,"d":false}"#);
        assert!(bench.has(|out| matches!(out, Output::SessionChanged(None))));
        let (reason, Next::Identify { after }) = bench.disconnected() else { panic!("it identifies") };
        // GW-063: `d` says whether the session may be resumed.
        assert_eq!(reason, Reason::InvalidSession { resumable: false });
        assert!((Duration::from_secs(1)..=Duration::from_secs(5)).contains(&after));
        // Nothing of the dead session counts any more.
        bench.clear().dispatch(43, "X");
        assert!(bench.delivered().is_empty());
        bench.closed(None).sleep();
        // GW-075: the Identify after op 9 passes the identify queue too.
        assert!(bench.has(|out| matches!(out, Output::Enqueue(Priority::LostSession))));
        bench.feed(Input::ConnectGrant);
        assert_eq!(bench.url(), Some("wss://bootstrap.example/?v=10&encoding=json"), "GW-140");
        bench.feed(Input::Connected).clear().hello();
        bench.shard.tick(&mut Context::new(bench.now, &mut || 0.0));
        bench.permit();
        assert_eq!(bench.sent()[0], r#"{"op":1,"d":null}"#, "GW-125: the old sequence is gone");
        assert!(bench.sent()[1].starts_with(r#"{"op":2"#));
    }
}

#[test]
fn gw_149_op_9_after_identify_waits_longer_each_time() {
    let mut bench = Bench::new();
    bench.feed(Input::Start).feed(Input::ConnectGrant);
    let mut waits = Vec::new();
    for _ in 0..9 {
        bench.feed(Input::Connected).hello().permit().clear().receive(r#"{"op":9,"d":false}"#);
        let (_, Next::Identify { after }) = bench.disconnected() else { panic!("it identifies") };
        waits.push(after.as_secs());
        bench.closed(None).reconnect();
    }
    assert_eq!(waits, [3, 7, 15, 30, 60, 120, 240, 450, 450], "up to ten minutes, here at half jitter");
}

#[test]
fn gw_149_the_wait_after_op_9_is_its_own() {
    let mut bench = Bench::new();
    bench.up().settle().dispatch(42, "X").closed(None);
    // A gateway that is away for a while, and then says that the session is gone.
    for _ in 0..5 {
        bench.reconnect().feed(Input::ConnectFailed);
    }
    bench.reconnect().feed(Input::Connected).hello().clear().receive(r#"{"op":9,"d":false}"#);
    assert_eq!(
        bench.disconnected(),
        (Reason::InvalidSession { resumable: false }, Next::Identify { after: Duration::from_secs(3) })
    );
}

#[test]
fn gw_153_op_9_again_and_again_waits_longer() {
    let mut bench = Bench::new();
    bench.up();
    let mut waits = Vec::new();
    for _ in 0..8 {
        bench.clear().receive(r#"{"op":9,"d":true}"#);
        let Next::Resume { after } = bench.disconnected().1 else { panic!("it resumes") };
        waits.push(after.as_secs());
        bench.closed(Some(4902)).reconnect().feed(Input::Connected).hello();
        bench.dispatch(2, "RESUMED");
    }
    assert_eq!(waits, [3, 3, 3, 6, 12, 24, 45, 45]);
}

#[test]
fn gw_148_op_9_false_counts_also_while_the_connection_is_closed() {
    for (first, resumable) in
        [(r#"{"op":7,"d":null}"#, false), (r#"{"op":9,"d":true}"#, false), (r#"{"op":7,"d":null}"#, true)]
    {
        let mut bench = Bench::new();
        bench.up().receive(first).receive(&format!(r#"{{"op":9,"d":{resumable}}}"#)).closed(Some(4900));
        assert_eq!(bench.shard.session().is_some(), resumable, "{first}");
    }
}

#[test]
fn gw_149_what_follows_waits_also_when_the_word_comes_while_the_connection_is_closed() {
    let words: [(&str, Act); 6] = [
        ("op 9 false", |bench| bench.receive(r#"{"op":9,"d":false}"#).closed(Some(4900))),
        ("op 9 true", |bench| bench.receive(r#"{"op":9,"d":true}"#).closed(Some(4900))),
        ("4003", |bench| bench.closed(Some(4003))),
        ("4006", |bench| bench.closed(Some(4006))),
        ("4007", |bench| bench.closed(Some(4007))),
        ("4009", |bench| bench.closed(Some(4009))),
    ];
    for (word, say) in words {
        for (random, seconds) in [(0.0, 1), (0.5, 3), (1.0, 5)] {
            let mut bench = Bench::new();
            bench.up().settle().receive(r#"{"op":7,"d":null}"#);
            bench.random = random;
            say(&mut bench);
            assert_eq!(bench.shard.session().is_some(), word == "op 9 true", "{word}");
            assert_eq!(bench.wait(), Duration::from_secs(seconds), "{word}");
        }
    }
    // A second word of the kind does not make it longer than the longest wait.
    let mut bench = Bench::new();
    bench.up().settle().receive(r#"{"op":7}"#);
    for _ in 0..20 {
        bench.receive(r#"{"op":9,"d":false}"#);
    }
    bench.closed(None);
    assert_eq!(bench.wait(), Duration::from_secs(3));
}

#[test]
fn a_connection_that_lasted_forgets_how_often_others_were_refused() {
    let mut bench = Bench::new();
    bench.feed(Input::Start).feed(Input::ConnectGrant);
    for _ in 0..5 {
        bench.feed(Input::Connected).hello().permit().receive(r#"{"op":9,"d":false}"#);
        bench.closed(None).reconnect();
    }
    bench.feed(Input::Connected).hello().permit().ready().settle();
    bench.receive(r#"{"op":9,"d":false}"#);
    let (_, Next::Identify { after }) = bench.disconnected() else { panic!("it identifies") };
    assert_eq!(after.as_secs(), 3, "as after the first one");
}
