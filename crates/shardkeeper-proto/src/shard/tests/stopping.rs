//! `Stop` and `Detach`, in every state.

use super::*;
use crate::close::ours;

#[test]
fn gw_098_stop_closes_with_1000_and_gives_the_session_up() {
    let mut bench = Bench::new();
    bench.up().feed(Input::Stop);
    assert_eq!(bench.close_code(), Some(1000));
    assert!(bench.has(|out| matches!(out, Output::SessionChanged(None))));
    bench.closed(Some(1000));
    assert!(bench.has(|out| matches!(out, Output::Changed(Change::Stopped))));
    assert!(bench.shard.is_ended() && bench.wakes_at.is_none());
}

/// Discord ends a session when its own connection is closed with 1000, and not before.
#[test]
fn gw_098_stop_ends_the_session_at_discord_from_every_state_that_has_one() {
    let states: [(&str, Act); 7] = [
        ("closing", |bench| bench.receive(r#"{"op":7}"#)),
        ("waiting", |bench| bench.closed(None).closed(None)),
        ("connecting", |bench| bench.closed(None).reconnect()),
        ("before hello", |bench| bench.closed(None).reconnect().feed(Input::Connected)),
        ("resuming", |bench| bench.closed(None).reconnect().feed(Input::Connected).hello()),
        ("ready", |bench| bench),
        ("closing after op 9 true", |bench| bench.receive(r#"{"op":9,"d":true}"#)),
    ];
    for (state, reach) in states {
        let mut bench = Bench::new();
        bench.up().dispatch(42, "X");
        reach(&mut bench);
        bench.clear().feed(Input::Stop);
        let gone = |out: &Output| matches!(out, Output::SessionChanged(None));
        assert!(bench.has(gone), "{state}: nobody is to resume it");
        let (start, mut code) = (bench.now, bench.close_code());
        if let State::Closing { then: Then::EndSession, .. } = bench.shard.state {
            // Until Discord has answered the close frame that said it would come back.
            bench.dispatch(43, "X").closed(Some(4900));
        }
        if let State::Connecting { .. } = bench.shard.state {
            bench.feed(Input::Connected);
        }
        if let State::AwaitingHello { .. } = bench.shard.state {
            bench.clear().hello();
            assert_eq!(bench.sent(), [RESUME_42], "{state}");
            assert_eq!(bench.close_code(), None, "{state}: not before Discord has taken it");
            assert!(!bench.shard.expects_dispatches(), "no subscriber is to hold it up");
            bench.dispatch(43, "X");
            code = bench.close_code();
        }
        assert_eq!(code, Some(1000), "{state}");
        bench.dispatch(44, "X").closed(Some(1000));
        assert!(bench.delivered().is_empty(), "{state}: it is over");
        assert!(bench.shard.is_ended() && bench.now == start, "{state}");
        assert!(bench.shard.session().is_none());
    }
}

#[test]
fn gw_098_ending_a_session_costs_three_seconds_at_most_and_nothing_brings_the_shard_back() {
    let troubles: [(&str, Act); 9] = [
        ("silence", |bench| bench),
        ("refused", |bench| bench.feed(Input::ConnectFailed)),
        ("paced", |bench| bench.feed(Input::ConnectDelayed(Duration::from_secs(60)))),
        ("no hello", |bench| bench.feed(Input::Connected)),
        ("cut", |bench| bench.feed(Input::Connected).closed(None)),
        ("op 7", |bench| bench.feed(Input::Connected).receive(r#"{"op":7}"#)),
        ("no answer", |bench| bench.feed(Input::Connected).hello()),
        ("op 9", |bench| bench.feed(Input::Connected).hello().receive(r#"{"op":9,"d":false}"#)),
        ("4004", |bench| bench.feed(Input::Connected).hello().closed(Some(4004))),
    ];
    for (trouble, make) in troubles {
        for again in [Input::Reconnect { fresh: true }, Input::Detach, Input::Stop] {
            let mut bench = Bench::new();
            bench.up().closed(None).feed(Input::Stop);
            assert!(bench.url().unwrap().starts_with(RESUME_URL));
            let start = bench.now;
            bench.feed(again);
            make(&mut bench);
            bench.end();
            assert!(bench.now - start <= Duration::from_secs(3), "{trouble}");
            assert!(
                !bench.has(|out| matches!(out, Output::ClaimPermit(_) | Output::Enqueue(_))),
                "{trouble}"
            );
            assert!(bench.shard.session().is_none() && bench.wakes_at.is_none(), "{trouble}");
            assert!(bench.has(|out| matches!(out, Output::Disconnect)), "{trouble}");
        }
    }
}

#[test]
fn a_session_that_discord_ends_first_is_not_resumed_to_be_ended() {
    let mut bench = Bench::new();
    bench.up().receive(r#"{"op":7,"d":null}"#).feed(Input::Stop).clear();
    bench.receive(r#"{"op":9,"d":false}"#).closed(None);
    assert!(bench.shard.is_ended());
    assert_eq!(bench.url(), None);
}

#[test]
fn gw_099_detach_keeps_the_session_and_has_a_deadline() {
    let mut bench = Bench::new();
    bench.up().dispatch(42, "X").clear().feed(Input::Detach).dispatch(43, "X");
    assert_eq!(bench.close_code(), Some(ours::DETACH));
    assert_eq!(bench.delivered(), [43]);
    bench.sleep();
    assert!(bench.has(|out| matches!(out, Output::Disconnect)));
    assert!(bench.shard.is_ended());
    assert_eq!(bench.shard.session(), Some(&session(43)));
}

/// A restart that comes too late must not discard what the next process is about to resume.
#[test]
fn gw_099_a_shard_that_detaches_keeps_its_session_whatever_is_asked_of_it() {
    for fresh in [false, true] {
        let mut bench = Bench::new();
        bench.up().dispatch(42, "X").feed(Input::Detach).clear().feed(Input::Reconnect { fresh });
        assert!(bench.out.is_empty(), "fresh: {fresh}");
        bench.closed(None);
        assert!(bench.shard.is_ended(), "fresh: {fresh}");
        assert_eq!(bench.shard.session(), Some(&session(42)), "fresh: {fresh}");
    }
}

#[test]
fn stop_and_detach_end_a_shard_in_every_state() {
    let steps: [fn(&mut Bench); 8] = [
        |_| {},
        |bench| {
            bench.feed(Input::Start);
        },
        |bench| {
            bench.feed(Input::ConnectGrant);
        },
        |bench| {
            bench.feed(Input::Connected);
        },
        |bench| {
            bench.hello();
        },
        |bench| {
            bench.permit();
        },
        |bench| {
            bench.ready();
        },
        |bench| {
            bench.receive(r#"{"op":7}"#);
        },
    ];
    for until in 0..=steps.len() {
        for detach in [false, true] {
            let mut bench = Bench::new();
            steps[..until].iter().for_each(|step| step(&mut bench));
            bench.clear().feed(if detach { Input::Detach } else { Input::Stop });
            bench.end();
            assert!(bench.has(|out| matches!(out, Output::Disconnect)), "{until} {detach}");
            // From Start, in the queue, up to the permit.
            let queued = (2..=5).contains(&until);
            assert_eq!(bench.has(|out| matches!(out, Output::LeaveQueue)), queued, "{until}");
            // GW-173: a permit that was not used for an Identify is given back.
            // Nothing wakes the dead; a permit is handed back.
            bench.clear().feed(Input::Timeout).feed(Input::Start);
            assert!(bench.out.is_empty());
            bench.permit();
            assert!(matches!(bench.out[..], [Output::LeaveQueue]));
        }
    }
}

#[test]
fn what_is_unreadable_while_it_closes_changes_nothing() {
    let mut bench = Bench::new();
    bench.up().feed(Input::Stop);
    let deadline = bench.wakes_at;
    for _ in 0..20 {
        bench.feed(Input::Malformed);
    }
    assert_eq!(bench.wakes_at, deadline);
    bench.sleep();
    assert!(bench.shard.is_ended(), "it was told to stop");
}
