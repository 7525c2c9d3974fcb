//! Properties that hold whatever comes in whatever order.

use proptest::prelude::*;

use super::*;
use crate::Opcode;

#[derive(Clone, Debug)]
enum Step {
    Feed(u8),
    Receive(&'static str),
    Dispatch(u64, &'static str),
    Closed(Option<u16>),
    Sleep,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let codes = prop::sample::select(vec![
        None,
        Some(1000),
        Some(4000),
        Some(4007),
        Some(4009),
        Some(4011),
        Some(4004),
    ]);
    let texts = prop::sample::select(vec![
        r#"{"op":10,"d":{"heartbeat_interval":41250}}"#,
        r#"{"op":10,"d":{"heartbeat_interval":41250}}"#,
        r#"{"op":10,"d":null}"#,
        r#"{"op":11}"#,
        r#"{"op":1}"#,
        r#"{"op":7}"#,
        r#"{"op":9,"d":true}"#,
        r#"{"op":9,"d":false}"#,
        r#"{"op":0,"t":"X","d":{}}"#,
        r#"{"op":0,"t":"READY","s":1,"d":{"session_id":"S","resume_gateway_url":"no url"}}"#,
        r#"{"op":0,"t":"READY","s":1,"d":{"session_id":"S"}}"#,
        r#"{"op":0,"t":"READY","s":1,"d":[]}"#,
    ]);
    prop_oneof![
        6 => (0_u8..16).prop_map(Step::Feed),
        6 => texts.prop_map(Step::Receive),
        3 => ((0_u64..30), prop::sample::select(vec!["X", "RESUMED"])).prop_map(|(s, t)| Step::Dispatch(s, t)),
        1 => codes.prop_map(Step::Closed),
        3 => Just(Step::Sleep),
        2 => (0_u64..50_000).prop_map(Step::Advance),
    ]
}

proptest! {
    /// Whatever comes in whatever order: it does not panic, identifies only with a permit, sends nothing when it is
    /// not connected, does not let the sequence of a session run back, and always knows when to wake up.
    #[test]
    fn any_order_of_inputs_keeps_the_invariants(steps in prop::collection::vec(step(), 0..120), ending in any::<bool>()) {
        let mut bench = Bench::new();
        bench.feed(Input::Start);
        let (mut connected, mut identified, mut sequence) = (false, false, None);
        for step in steps {
            bench.clear();
            let mut permits = usize::from(matches!(step, Step::Feed(0)));
            match step {
                Step::Feed(0) => {
                    bench.permit();
                }
                Step::Feed(1) => { bench.feed(Input::ConnectFailed); }
                Step::Feed(2) => {
                    bench.feed(Input::Malformed);
                }
                Step::Feed(3) => {
                    bench.feed(Input::QueueReplaced);
                }
                Step::Feed(4) => {
                    bench.feed(Input::Presence(presence("p")));
                }
                Step::Feed(5) => {
                    bench.feed(Input::ReadingPaused(true));
                }
                Step::Feed(6) => {
                    bench.feed(Input::ReadingPaused(false));
                }
                Step::Feed(7) => {
                    bench.feed(Input::Closed { code: None, corrupt: true, detail: None });
                }
                Step::Feed(8) => {
                    bench.feed(Input::ConnectDelayed(Duration::from_secs(1)));
                }
                Step::Feed(9 | 10) => {
                    bench.feed(Input::ConnectGrant);
                }
                Step::Feed(11) => {
                    bench.feed(voice());
                }
                Step::Feed(15) => {
                    bench.feed(Input::GiveUpCommands);
                }
                Step::Feed(fresh @ (12 | 13)) => {
                    bench.feed(Input::Reconnect { fresh: fresh == 12 });
                }
                Step::Feed(14) => {
                    bench.feed(Input::Probe(7));
                }
                Step::Feed(_) => {
                    connected |= matches!(bench.shard.state, State::Connecting { .. });
                    bench.feed(Input::Connected);
                }
                Step::Receive(text) => {
                    bench.receive(text);
                }
                Step::Dispatch(s, t) => {
                    bench.dispatch(s, t);
                }
                Step::Closed(code) => {
                    bench.closed(code);
                }
                Step::Sleep if bench.wakes_at.is_some() => {
                    bench.sleep();
                }
                Step::Sleep => {}
                Step::Advance(ms) => {
                    bench.now += Duration::from_millis(ms);
                    bench.feed(Input::Timeout);
                }
            }
            for output in &bench.out {
                match output {
                    Output::Send(payload) => {
                        prop_assert!(connected, "sent without a connection: {payload:?}");
                        let vital = [Opcode::Identify, Opcode::Resume, Opcode::Heartbeat].iter().any(|vital| payload.is(*vital));
                        prop_assert!(vital || bench.shard.is_ready(), "GW-029: {payload:?} before the session");
                        if payload.is(Opcode::Identify) {
                            // GW-075: every Identify passes the identify queue first.
                            prop_assert!(permits > 0, "an Identify without a permit");
                            permits -= 1;
                            // GW-074: one Identify per connection.
                            prop_assert!(!identified, "a second Identify on one connection");
                            identified = true;
                        }
                    }
                    Output::Connect(_) => identified = false,
                    Output::Disconnect => connected = false,
                    Output::Close(code) => prop_assert!(*code >= 4000, "GW-098: {code} before a resume"),
                    Output::SessionChanged(_) => sequence = None,
                    _ => {}
                }
            }
            if let Some(session) = bench.shard.session() {
                prop_assert!(sequence.is_none_or(|before| session.sequence >= before));
                sequence = Some(session.sequence);
            }
            let waits = !matches!(bench.shard.state, State::Ready { .. }) && !bench.shard.is_ended();
            prop_assert!(!waits || bench.wakes_at.is_some(), "{:?} waits for ever", bench.shard.state);
            // GW-111: from Hello to the end, whatever else happens.
            if bench.shard.heartbeat.is_some() {
                prop_assert!(bench.wakes_at.is_some_and(|at| at <= bench.now + INTERVAL), "no heartbeat is due");
            }
        }
        bench.feed(if ending { Input::Stop } else { Input::Detach });
        bench.end();
    }
}
