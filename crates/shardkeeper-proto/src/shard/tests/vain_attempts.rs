//! Attempts that do nothing for a session: the next URL, the waits in between, and when the session is dropped.

use super::*;

/// Every way in which an attempt can do nothing for the session, while Discord says nothing about it.
const VAIN: [(&str, Act); 10] = [
    ("refused", |bench| bench.feed(Input::ConnectFailed)),
    ("no connection in time", |bench| bench.sleep()),
    ("no hello", |bench| bench.feed(Input::Connected).sleep()),
    ("op 7 instead of hello", |bench| bench.feed(Input::Connected).receive(r#"{"op":7}"#).closed(None)),
    ("closed before hello", |bench| bench.feed(Input::Connected).closed(Some(1001))),
    ("cut before hello", |bench| bench.feed(Input::Connected).closed(None)),
    ("no hello that can be read", |bench| bench.feed(Input::Connected).receive(r#"{"op":10}"#).closed(None)),
    ("closed", |bench| bench.feed(Input::Connected).hello().closed(Some(1012))),
    ("op 7", |bench| bench.feed(Input::Connected).hello().receive(r#"{"op":7}"#).closed(None)),
    ("op 9 true", |bench| bench.feed(Input::Connected).hello().receive(r#"{"op":9,"d":true}"#).closed(None)),
];

/// With the last part of an attempt: what is still to be waited for.
fn try_in_vain(bench: &mut Bench, vain: Act) {
    vain(bench);
    if let State::Closing { .. } = bench.shard.state {
        bench.closed(None);
    }
}

#[test]
fn gw_103_140_a_session_outlives_every_vain_attempt_for_a_quarter_of_an_hour_and_no_longer() {
    for (how, vain) in VAIN {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.feed(Input::Start);
        let (mut attempts, mut first_end, mut last_end) = (0, None, bench.now);
        while bench.shard.session().is_some() {
            attempts += 1;
            assert!(attempts <= 60, "{how}: too many attempts");
            try_in_vain(&mut bench, vain);
            first_end.get_or_insert(bench.now);
            last_end = bench.now;
            bench.reconnect();
        }
        let kept = last_end - first_end.unwrap();
        // The longest wait, and an attempt that hangs, may come on top.
        assert!((900..=900 + 60 + 25).contains(&kept.as_secs()), "{how}: kept for {kept:?}");
        assert!(attempts >= 15, "{how}: only {attempts} attempts");
        assert_eq!(bench.url(), Some("wss://bootstrap.example/?v=10&encoding=json"), "{how}: GW-140");
    }
}

#[test]
fn gw_139_a_host_that_says_no_hello_is_left_for_the_bootstrap_url_which_is_asked_for_in_its_turn() {
    for (how, vain) in &VAIN[..7] {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.feed(Input::Start);
        for round in 0..3 {
            assert!(bench.url().unwrap().starts_with(RESUME_URL), "{how}, {round}");
            bench.clear();
            try_in_vain(&mut bench, *vain);
            assert!(!bench.has(|out| matches!(out, Output::AskGateway)), "{how}: it was the resume URL");
            bench.reconnect();
            assert!(bench.url().unwrap().starts_with("wss://bootstrap"), "{how}, {round}");
            bench.clear();
            try_in_vain(&mut bench, *vain);
            assert!(bench.has(|out| matches!(out, Output::AskGateway)), "{how}");
            bench.reconnect();
        }
        try_in_vain(&mut bench, *vain);
        bench.reconnect().feed(Input::Connected).clear().hello();
        assert_eq!(bench.sent(), [RESUME_42], "{how}: at the bootstrap URL");
    }
}

#[test]
fn gw_139_an_unreachable_resume_url_is_left_for_the_bootstrap_url_and_the_session_kept() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    assert!(bench.url().unwrap().starts_with(RESUME_URL));
    bench.feed(Input::ConnectFailed).reconnect();
    assert!(bench.url().unwrap().starts_with("wss://bootstrap"));
    bench.feed(Input::ConnectFailed).reconnect();
    assert!(bench.url().unwrap().starts_with(RESUME_URL), "both were down: from the beginning");
    bench.feed(Input::Connected).clear().hello();
    assert_eq!(bench.sent(), [RESUME_42]);
}

#[test]
fn gw_132_a_host_that_answers_is_left_only_after_five_resumes_in_vain_and_one_that_is_silent_at_once() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    let mut at = Vec::new();
    for _ in 0..12 {
        at.push(bench.url().unwrap().starts_with(RESUME_URL));
        bench.feed(Input::Connected).hello().closed(Some(4000)).reconnect();
    }
    assert_eq!(at, [[true; 5].as_slice(), &[false; 5], &[true; 2]].concat());

    let mut bench = Bench::with_session(Some(session(42)));
    bench.resume().clear();
    while bench.close_code().is_none() {
        bench.sleep().ack();
    }
    assert_eq!(bench.disconnected().0, Reason::ResumedTimeout);
    bench.closed(None).reconnect();
    assert!(bench.url().unwrap().starts_with("wss://bootstrap"));
}

#[test]
fn gw_132_once_avoided_the_resume_url_is_used_again_after_a_resume_elsewhere() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start).feed(Input::ConnectFailed).reconnect();
    assert!(bench.url().unwrap().starts_with("wss://bootstrap"));
    bench.feed(Input::Connected).hello().dispatch(43, "RESUMED").settle().closed(None).reconnect();
    assert!(bench.url().unwrap().starts_with(RESUME_URL), "{:?}", bench.url());
    // Nor does another session inherit it: its own URL has done nothing wrong.
    bench.feed(Input::ConnectFailed).reconnect().feed(Input::Connected).hello();
    bench
        .receive(r#"{"op":9,"d":false}"#)
        .closed(None)
        .reconnect()
        .feed(Input::Connected)
        .hello()
        .permit()
        .ready();
    bench.settle().closed(None).reconnect();
    assert!(bench.url().unwrap().starts_with(RESUME_URL), "{:?}", bench.url());
}

#[test]
fn a_resume_that_works_forgets_how_long_others_were_in_vain() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    for round in 0..4 {
        let start = bench.now;
        while bench.now - start < Duration::from_secs(700) {
            bench.feed(Input::Connected).hello().closed(Some(4000)).reconnect();
        }
        bench.feed(Input::Connected).hello();
        // By RESUMED, or by nothing but an event of the replay.
        if round % 2 == 0 {
            bench.dispatch(43 + round, "RESUMED");
        } else {
            bench.dispatch(43 + round, "X");
        }
        assert!(bench.shard.session().is_some());
        bench.closed(None).reconnect();
    }
    // So do the resumes at one URL: four more, and it is still the resume URL's turn.
    bench.feed(Input::Connected).hello().dispatch(50, "RESUMED").closed(None).reconnect();
    for _ in 0..4 {
        bench.feed(Input::Connected).hello().closed(Some(4000)).reconnect();
        assert!(bench.url().unwrap().starts_with(RESUME_URL));
    }
}

#[test]
fn a_resume_that_was_not_let_finish_says_nothing_about_its_host() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    for _ in 0..10 {
        bench.feed(Input::Connected).hello().feed(Input::Reconnect { fresh: false });
        bench.closed(None).reconnect();
        assert!(bench.url().unwrap().starts_with(RESUME_URL));
    }
}

#[test]
fn a_host_that_asks_to_be_left_alone_is_left_alone_for_five_minutes_at_most() {
    let seconds = Duration::from_secs;
    for (asked, waits) in [(0, 0), (20, 20), (300, 300), (86_400, 300)] {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.feed(Input::Start).clear().feed(Input::ConnectRefused { retry_after: seconds(asked) });
        let (reason, Next::Resume { after }) = bench.disconnected() else { panic!("it resumes") };
        assert_eq!(reason, Reason::ConnectFailed);
        assert!((seconds(waits)..=seconds(waits + 1)).contains(&after), "{asked}: {after:?}");
    }
    // Our own wait may be longer.
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    for _ in 0..9 {
        bench.feed(Input::ConnectFailed).reconnect();
    }
    bench.clear().feed(Input::ConnectRefused { retry_after: seconds(2) });
    assert!(matches!(bench.disconnected().1, Next::Resume { after } if after > seconds(29)));
}

#[test]
fn a_peer_that_accepts_and_closes_is_tried_once_a_second_and_then_less_often() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    let start = bench.now;
    let mut connects = Vec::new();
    for _ in 0..12 {
        connects.push((bench.now - start).as_millis());
        bench.feed(Input::Connected).hello().closed(None).reconnect();
    }
    assert!(connects[1] == 0 && connects[2] >= 1000, "{connects:?}");
    // GW-154: neither a connection nor a Hello resets the backoff.
    let gaps: Vec<u128> = connects.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted() && *gaps.last().unwrap() == 45_000, "{gaps:?}");
}

#[test]
fn gw_154_failures_are_forgotten_only_after_a_stable_time() {
    let mut bench = Bench::new();
    bench.up().closed(None).reconnect();
    bench.feed(Input::Connected).hello().dispatch(2, "RESUMED").clear().closed(None);
    assert!(matches!(bench.disconnected().1, Next::Resume { after } if after >= Duration::from_secs(1)));
    bench.reconnect().feed(Input::Connected).hello().dispatch(3, "RESUMED").settle().closed(None);
    assert_eq!(bench.disconnected().1, Next::Resume { after: Duration::ZERO });
}

#[test]
fn deadline_of_connect() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    assert_eq!(bench.wait(), Duration::from_secs(10));
    bench.clear().sleep();
    assert!(bench.has(|out| matches!(out, Output::Disconnect)));
    assert_eq!(bench.disconnected().0, Reason::ConnectTimeout);
    assert!(bench.shard.session().is_some());
}

#[test]
fn gw_105_deadline_of_hello_keeps_the_session() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    for _ in 0..6 {
        bench.feed(Input::Connected);
        assert_eq!(bench.wait(), Duration::from_secs(20));
        bench.clear().sleep();
        assert_eq!(bench.disconnected().0, Reason::HelloTimeout);
        assert!(matches!(bench.disconnected().1, Next::Resume { .. }));
        bench.reconnect();
    }
}
