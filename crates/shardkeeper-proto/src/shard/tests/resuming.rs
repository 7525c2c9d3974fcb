//! Resumes and what they replay.

use super::*;

#[test]
fn gw_134_a_connection_lost_in_mid_replay_resumes_from_there_and_does_not_count_as_fruitless() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start);
    for round in 0..5 {
        bench.feed(Input::Connected).clear().hello();
        assert_eq!(bench.sent(), [RESUME_42.replace("42", &(42 + round).to_string())]);
        bench.dispatch(43 + round, "X").clear().closed(None);
        assert!(matches!(bench.disconnected().1, Next::Resume { .. }));
        bench.reconnect();
    }
}

#[test]
fn gw_020_what_was_delivered_before_is_not_delivered_again_by_a_replay() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.resume().clear();
    bench.dispatch(41, "X").dispatch(42, "X").dispatch(43, "X").dispatch(44, "RESUMED");
    assert_eq!(bench.delivered(), [43, 44]);
    assert!(bench.has(|out| matches!(out, Output::Changed(Change::Resumed { replayed: 1 }))));
}

#[test]
fn what_a_replay_still_brings_while_it_closes_is_marked_and_comes_once() {
    for input in [Input::Reconnect { fresh: false }, Input::Detach] {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.resume().dispatch(43, "X").feed(input);
        assert!(bench.close_code().is_some());
        bench.clear();
        bench.dispatch(42, "X").dispatch(43, "X").dispatch(44, "X").dispatch(45, "RESUMED").dispatch(46, "X");
        assert_eq!(deliveries(&bench), [(44, true), (45, false), (46, false)]);
    }
}

#[test]
fn deadline_of_resumed_counts_from_the_last_progress() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.resume();
    bench.now += Duration::from_secs(10);
    bench.dispatch(43, "X");
    let start = bench.now;
    bench.clear();
    while bench.close_code().is_none() {
        bench.sleep();
        if bench.close_code().is_none() {
            bench.ack();
        }
    }
    assert_eq!(bench.now - start, Duration::from_secs(60));
    // GW-135: no Identify on a connection on which Resume was sent.
    assert!(bench.sent().iter().all(|payload| payload.starts_with(r#"{"op":1,"#)), "{:?}", bench.sent());
    assert!(matches!(bench.disconnected(), (Reason::ResumedTimeout, Next::Resume { .. })));
}

#[test]
fn a_replay_without_an_end_is_ended_and_begun_again_from_there_and_then_given_up() {
    let mut bench = Bench::with_session(Some(session(1)));
    bench.feed(Input::Start);
    let (mut sequence, mut lasted) = (1, Vec::new());
    while bench.shard.session().is_some() {
        bench.feed(Input::Connected).clear().hello();
        assert!(bench.sent()[0].contains(&format!(r#""seq":{sequence}}}"#)), "{:?}", bench.sent());
        let start = bench.now;
        while bench.close_code().is_none() {
            bench.now += Duration::from_secs(5);
            sequence += 1;
            bench.dispatch(sequence, "X").ack().feed(Input::Timeout);
            assert!(bench.now - start <= Duration::from_secs(3600), "it never ends");
        }
        lasted.push((bench.now - start).as_secs());
        assert_eq!(bench.disconnected().0, Reason::ResumedTimeout);
        bench.closed(None).reconnect();
    }
    assert_eq!(lasted, [600; 3]);
}

#[test]
fn a_replay_that_a_subscriber_holds_up_has_all_its_time() {
    let mut bench = Bench::with_session(Some(session(1)));
    bench.resume().clear();
    let start = bench.now;
    let mut sequence = 1;
    while bench.now - start < Duration::from_secs(1800) {
        sequence += 1;
        bench.dispatch(sequence, "X").ack().feed(Input::ReadingPaused(true));
        for _ in 0..4 {
            bench.now += Duration::from_secs(5);
            bench.feed(Input::Timeout);
        }
        bench.feed(Input::ReadingPaused(false));
        bench.now += Duration::from_secs(1);
    }
    assert_eq!(bench.close_code(), None);
    sequence += 1;
    bench.dispatch(sequence, "RESUMED");
    assert!(bench.shard.is_ready());
}

#[test]
fn the_time_for_a_replay_stands_still_while_nothing_is_read() {
    let timings = Timings::default();
    let mut bench = Bench::with_session(Some(session(42)));
    bench.resume().dispatch(43, "X").feed(Input::ReadingPaused(true));
    let until = bench.now + timings.replay + timings.resumed;
    while bench.now < until {
        bench.sleep();
    }
    bench.feed(Input::ReadingPaused(false)).dispatch(44, "X");
    bench.now += timings.resumed / 2;
    bench.feed(Input::Timeout);
    assert_eq!(bench.close_code(), None, "the replay goes on");
    bench.dispatch(45, "RESUMED");
    assert!(bench.shard.is_ready());
}

#[test]
fn deadlines_do_not_judge_while_nothing_is_read() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start).feed(Input::Connected).feed(Input::ReadingPaused(true)).clear();
    for _ in 0..10 {
        bench.sleep();
    }
    assert_eq!(bench.close_code(), None, "Hello may be here, unread");
    bench.feed(Input::ReadingPaused(false)).hello().feed(Input::ReadingPaused(true)).clear();
    for _ in 0..10 {
        bench.sleep();
    }
    assert_eq!(bench.close_code(), None, "so may be the replay");
    bench.feed(Input::ReadingPaused(false)).dispatch(43, "RESUMED");
    assert!(bench.shard.is_ready());
}

#[test]
fn gw_131_without_a_url_to_resume_at_the_bootstrap_url_has_to_do() {
    let bootstrap = "wss://bootstrap.example/?v=10&encoding=json";
    for url in
        ["null", "7", r#""""#, r#""no url""#, r#""wss:""#, r#""http://r.example""#, r#""ws://r.example""#]
    {
        let mut bench = Bench::new();
        bench.identify();
        bench.receive(&format!(
            r#"{{"t":"READY","s":1,"op":0,"d":{{"session_id":"S","resume_gateway_url":{url}}}}}"#
        ));
        assert!(bench.shard.is_ready());
        assert!(bench.has(|out| matches!(out, Output::Odd(Oddity::NoResumeUrl))), "{url}");
        bench.clear().closed(None);
        assert!(matches!(bench.disconnected().1, Next::Resume { .. }), "{url}");
        assert_eq!(bench.reconnect().url(), Some(bootstrap), "{url}");
        bench.feed(Input::Connected).hello();
        assert_eq!(bench.sent().last(), Some(&r#"{"op":6,"d":{"token":"T","session_id":"S","seq":1}}"#));
    }
    let mut bench = Bench::with_session(Some(Session { resume_url: None, ..session(42) }));
    assert_eq!(bench.feed(Input::Start).url(), Some(bootstrap));
}
