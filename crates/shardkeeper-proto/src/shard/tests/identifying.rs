//! The way to a new session: the identify queue, Hello, the permit, READY.

use super::*;
use crate::SessionMismatch;

#[test]
fn gw_010_108_124_the_path_to_ready() {
    let mut bench = Bench::new();
    bench.feed(Input::Start);
    assert!(matches!(bench.out[..], [Output::Changed(Change::Queued), Output::Enqueue(Priority::ColdStart)]));
    bench.clear().feed(Input::ConnectGrant);
    assert_eq!(bench.url(), Some("wss://bootstrap.example/?v=10&encoding=json"));
    bench.clear().feed(Input::Connected);
    assert!(bench.out.is_empty(), "GW-028: nothing goes before Hello");
    // GW-024: this Hello has the undocumented key `_trace`.
    bench.hello();
    assert!(bench.has(|out| matches!(out, Output::ClaimPermit(Priority::ColdStart))));
    assert!(bench.sent().is_empty(), "GW-075: no Identify without a permit");
    bench.clear().permit();
    assert_eq!(bench.sent().len(), 1, "before any heartbeat");
    assert!(bench.sent()[0].starts_with(r#"{"op":2,"d":{"token":"T","#));
    assert!(bench.sent()[0].contains(r#""shard":[3,16]"#));
    bench.clear().ready();
    assert!(matches!(
        &bench.out[..],
        [Output::SessionChanged(Some(stored)), Output::Changed(Change::Ready), Output::Deliver { sequence: 1, replayed: false }]
            if *stored == session(1)
    ));
}

#[test]
fn gw_109_deadline_of_ready() {
    let mut bench = Bench::new();
    bench.identify();
    let start = bench.now;
    bench.clear();
    while bench.close_code().is_none() {
        bench.sleep();
        if bench.close_code().is_none() {
            // GW-122: in an outage heartbeats go on.
            bench.ack();
        }
    }
    assert_eq!(bench.now - start, Duration::from_secs(120));
    assert!(bench.sent().len() >= 2);
    assert!(matches!(bench.disconnected(), (Reason::ReadyTimeout, Next::Identify { .. })));
}

#[test]
fn gw_074_a_permit_that_comes_late_is_not_spent() {
    for ready in [false, true] {
        let mut bench = Bench::new();
        bench.identify();
        if ready {
            bench.ready();
        }
        bench.clear().permit();
        assert!(bench.sent().is_empty() && bench.has(|out| matches!(out, Output::LeaveQueue)));
    }
}

#[test]
fn a_permit_is_handed_back_by_a_shard_that_cannot_use_it() {
    let mut bench = Bench::new();
    bench.up().permit();
    // GW-074: one Identify per connection. GW-173: the permit is given back.
    assert!(bench.sent().is_empty());
    assert!(matches!(bench.out[..], [Output::LeaveQueue]));
}

#[test]
fn a_permit_that_crosses_a_disconnect_does_not_cost_the_new_place_in_the_queue() {
    let mut bench = Bench::new();
    bench.connect().hello().closed(None).sleep();
    let left = bench.out.iter().filter(|out| matches!(out, Output::LeaveQueue)).count();
    assert_eq!(left, 1, "that gave the permit back");
    bench.clear().permit();
    assert!(bench.out.is_empty(), "{:?}", bench.out);
}

#[test]
fn a_shard_in_the_queue_asks_again_after_a_while_and_when_the_queue_is_new() {
    let mut bench = Bench::new();
    bench.feed(Input::Start).clear();
    assert_eq!(bench.wait(), Duration::from_secs(30));
    bench.sleep().feed(Input::QueueReplaced);
    assert!(matches!(bench.out[..], [Output::Enqueue(_), Output::Enqueue(_)]));
    bench.feed(Input::ConnectGrant).feed(Input::Connected).hello().clear().feed(Input::QueueReplaced);
    assert!(matches!(bench.out[..], [Output::ClaimPermit(_)]));
}

#[test]
fn gw_041_payload_compression_is_asked_for_in_identify() {
    let mut bench = Bench::new();
    bench.shard.config.wire.payload_compression = true;
    bench.identify();
    assert!(bench.sent()[0].contains(r#""compress":true"#));
}

#[test]
fn gw_141_a_session_of_another_slot_is_not_used() {
    let other = Session { count: ShardCount::new(8).unwrap(), ..session(42) };
    let mut bench = Bench::with_session(Some(other));
    bench.feed(Input::Start);
    assert!(bench.has(|out| matches!(out, Output::Enqueue(_))));
}

#[test]
fn gw_012_181_a_session_of_another_query_or_other_intents_is_not_used() {
    let query = Wire { compress: Some("zlib-stream"), ..Wire::default() }.query();
    for other in [Session { query, ..session(42) }, Session { intents: Intents::all(), ..session(42) }] {
        let mut bench = Bench::with_session(Some(other));
        bench.feed(Input::Start);
        assert!(bench.has(|out| matches!(out, Output::Enqueue(_))), "it identifies");
    }
}

#[test]
fn a_session_from_outside_does_not_send_the_token_in_the_clear() {
    let bench = Bench::new();
    let of = |url: &str| Session { resume_url: Some(url.to_owned()), ..session(42) };
    for scheme in ["ws", "http"] {
        let session = of(&format!("{scheme}://r.example"));
        let error = session.check(&bench.shard.config).unwrap_err();
        assert_eq!(error, SessionMismatch::Downgrade { scheme: scheme.into() });
        let mut bench = Bench::with_session(Some(session));
        bench.feed(Input::Start);
        assert!(bench.has(|out| matches!(out, Output::Enqueue(_))), "it identifies");
    }
    let mut plain = bench.shard.config;
    for url in ["wss://r.example", "no url", ""] {
        assert_eq!(of(url).check(&plain), Ok(()), "{url}");
    }
    plain.gateway_url = "ws://127.0.0.1:7000".parse().unwrap();
    assert_eq!(of("ws://127.0.0.1:7000/resume").check(&plain), Ok(()));
}

#[test]
fn nothing_printed_holds_the_token_or_the_session_id() {
    let mut bench = Bench::with_session(Some(Session { id: "secret-session".into(), ..session(42) }));
    bench.resume();
    let printed = format!("{:?} {:?}", bench.out, bench.shard);
    assert!(!printed.contains("secret-session") && !printed.contains("token\""), "{printed}");
}

#[test]
fn gw_002_an_unreachable_bootstrap_url_is_asked_for_again() {
    let asks = |bench: &Bench| bench.has(|out| matches!(out, Output::AskGateway));
    let mut bench = Bench::new();
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::ConnectFailed);
    assert!(asks(&bench));
    bench.feed(Input::GatewayUrl("wss://other.example".parse().unwrap())).reconnect();
    assert_eq!(bench.url(), Some("wss://other.example/?v=10&encoding=json"));
    // A resume URL that cannot be reached is no reason to ask again.
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start).feed(Input::ConnectFailed);
    assert!(!asks(&bench));
    // An Identify that came too early may have been right by what was known.
    let mut bench = Bench::new();
    bench.identify().receive(r#"{"op":9,"d":false}"#);
    assert!(asks(&bench));
}
