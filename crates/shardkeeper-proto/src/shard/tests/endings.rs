//! How a connection ends, other than by `Stop` and `Detach`.

use super::*;
use crate::close::{CloseCode, Recovery, ours};

#[test]
fn gw_144_op_7_closes_and_resumes_at_once() {
    let mut bench = Bench::new();
    // GW-061: op 7 asks for a reconnect; its `d` is `null`.
    bench.up().settle().dispatch(42, "X").clear().receive(r#"{"op":7,"d":null}"#);
    assert_eq!(bench.close_code(), Some(ours::RECONNECT));
    // GW-130, GW-137: after op 7 the shard resumes, at once.
    assert_eq!(bench.disconnected(), (Reason::ReconnectRequested, Next::Resume { after: Duration::ZERO }));
    // GW-145: what still comes counts.
    bench.clear().dispatch(43, "X");
    assert_eq!(bench.delivered(), [43]);
    bench.closed(Some(ours::RECONNECT)).reconnect();
    // GW-132: Resume goes to `resume_gateway_url`.
    assert_eq!(bench.url(), Some("wss://resume.example/?v=10&encoding=json"));
    bench.feed(Input::Connected).clear().hello();
    assert_eq!(bench.sent(), [r#"{"op":6,"d":{"token":"T","session_id":"S","seq":43}}"#]);
}

#[test]
fn gw_104_op_7_before_hello_with_and_without_a_session() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start).feed(Input::Connected).clear().receive(r#"{"op":7}"#);
    assert_eq!(bench.disconnected().1, Next::Resume { after: Duration::ZERO });
    bench.closed(None).reconnect().feed(Input::Connected).clear().hello();
    assert_eq!(bench.sent(), [RESUME_42]);

    let mut bench = Bench::new();
    bench.connect().clear().receive(r#"{"op":7}"#);
    assert_eq!(bench.disconnected().1, Next::Identify { after: Duration::ZERO });
    // GW-173: a connection that fails before Identify gives its place back.
    assert!(bench.has(|out| matches!(out, Output::LeaveQueue)), "its turn is free again");
    bench.closed(None).clear().sleep();
    assert!(bench.has(|out| matches!(out, Output::Enqueue(Priority::ColdStart))));
}

/// Every close code of GW-076 to GW-094: what follows on a ready shard, and on one that resumes.
#[test]
fn gw_076_to_094_each_close_code_leads_where_the_table_says() {
    use Recovery::{Fatal, NewSession, Resume};
    let codes = [
        1000, 1001, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4010, 4011,
        4012, 4013, 4014, 4999,
    ];
    for code in codes.map(Some).into_iter().chain([None]) {
        let recovery = code.map_or(Resume, |code| CloseCode(code).recovery());
        let mut bench = Bench::new();
        bench.up().settle().dispatch(42, "X").clear().closed(code);
        let (_, next) = bench.disconnected();
        match recovery {
            // GW-130: Resume after every close code that allows reconnecting.
            Resume => assert_eq!(next, Next::Resume { after: Duration::ZERO }, "{code:?}"),
            NewSession => assert_eq!(next, Next::Identify { after: Duration::ZERO }, "{code:?}"),
            Fatal(scope) => {
                assert_eq!(next, Next::End);
                // GW-096: the refusal says whether it concerns the whole token or the layout.
                assert!(bench.has(
                    |out| matches!(out, Output::Changed(Change::Refused(refusal)) if refusal.scope == scope)
                ));
                assert!(bench.shard.is_ended());
                assert_eq!(bench.wakes_at, None, "GW-095: it never comes back by itself");
                continue;
            }
        }
        if recovery == NewSession {
            continue;
        }
        bench.reconnect().feed(Input::Connected).hello().clear().closed(code);
        let (_, next) = bench.disconnected();
        assert!(matches!(next, Next::Resume { .. }), "while resuming, {code:?}: {next:?}");
    }
}

#[test]
fn gw_053_a_corrupt_stream_resumes() {
    let mut bench = Bench::new();
    bench.up().settle().dispatch(42, "X").clear().feed(Input::Closed {
        code: None,
        corrupt: true,
        detail: None,
    });
    assert_eq!(bench.disconnected(), (Reason::Unreadable, Next::Resume { after: Duration::ZERO }));
}

#[test]
fn what_the_peer_said_is_reported_with_the_disconnect() {
    let reported = |bench: &Bench| {
        bench.out.iter().find_map(|out| match out {
            Output::Changed(Change::Disconnected { detail, .. }) => Some(detail.clone()),
            _ => None,
        })
    };
    let mut bench = Bench::new();
    bench.up().feed(Input::Closed { code: Some(4000), corrupt: false, detail: Some("why".into()) });
    assert_eq!(reported(&bench), Some(Some("why".into())));
    bench.clear().reconnect().feed(Input::ConnectFailed);
    assert_eq!(reported(&bench), Some(None), "that was another one");
    bench.clear().reconnect().feed(Input::Connected).feed(Input::Unreadable("too much"));
    assert_eq!(reported(&bench), Some(Some("too much".into())));
}

#[test]
fn a_shard_that_has_to_reconnect_resumes_or_identifies_and_says_why() {
    for (fresh, next) in [(false, 6), (true, 2)] {
        let mut bench = Bench::new();
        bench.up();
        bench.clear().feed(Input::Reconnect { fresh });
        assert!(bench.has(|out| matches!(out, Output::Close(4000..))), "the session stays good");
        let reported = |out: &Output| {
            matches!(out, Output::Changed(Change::Disconnected { reason: Reason::Requested, .. }))
        };
        assert!(bench.has(reported));
        bench.closed(Some(4000)).reconnect();
        if fresh {
            bench.feed(Input::ConnectGrant);
        }
        bench.feed(Input::Connected).clear().hello();
        if fresh {
            bench.permit();
        }
        assert!(bench.sent()[0].starts_with(&format!(r#"{{"op":{next},"#)), "{:?}", bench.sent());
    }
}

#[test]
fn asked_to_start_afresh_between_connections_it_identifies_next() {
    let mut bench = Bench::new();
    bench.up();
    bench.closed(None).feed(Input::Reconnect { fresh: true });
    assert!(bench.has(|out| matches!(out, Output::SessionChanged(None))));
    bench.clear().sleep();
    assert!(bench.has(|out| matches!(out, Output::Enqueue(_))), "{:?}", bench.out);
}

#[test]
fn asked_to_reconnect_again_and_again_it_keeps_its_session() {
    let mut bench = Bench::new();
    bench.up();
    for _ in 0..5 {
        bench.feed(Input::Reconnect { fresh: false }).closed(None);
        bench.reconnect().feed(Input::Connected).clear().hello();
        assert!(bench.sent()[0].starts_with(r#"{"op":6,"#), "{:?}", bench.sent());
    }
}
