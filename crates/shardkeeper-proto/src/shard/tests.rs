//! The machine, driven by a plain loop with a virtual clock.

use proptest::prelude::*;

use super::*;
use crate::close::{CloseCode, Recovery, ours};
use crate::{Activity, OnlineStatus, Opcode, Presence, RequestMembers, SessionMismatch, VoiceStateUpdate};

const INTERVAL: Duration = Duration::from_millis(41_250);
const RESUME_URL: &str = "wss://resume.example";

/// A shard, a clock that only the test moves, and what the shard put out.
struct Bench {
    shard: Shard,
    now: Instant,
    random: f64,
    out: Vec<Output>,
    wakes_at: Option<Instant>,
}

impl Bench {
    fn with_session(session: Option<Session>) -> Self {
        let config = ShardConfig {
            token: Token::new("T").unwrap(),
            shard: ShardId(3),
            count: ShardCount::new(16).unwrap(),
            intents: Intents::GUILDS,
            large_threshold: 50,
            library: "lib".into(),
            gateway_url: "wss://bootstrap.example".parse().unwrap(),
            wire: Wire::default(),
            timings: Timings::default(),
        };
        let shard = Shard::new(config, session);
        Self { shard, now: Instant::now(), random: 0.5, out: Vec::new(), wakes_at: None }
    }

    fn new() -> Self {
        Self::with_session(None)
    }

    fn feed(&mut self, input: Input<'_>) -> &mut Self {
        let random = self.random;
        self.shard.handle_input(self.now, &mut || random, input);
        self.wakes_at = loop {
            match self.shard.poll_output() {
                Output::Timeout(at) => break at,
                output => self.out.push(output),
            }
        };
        self
    }

    fn receive(&mut self, payload: &str) -> &mut Self {
        self.feed(Input::Payload(&Envelope::split(payload.as_bytes()).unwrap()))
    }

    fn dispatch(&mut self, sequence: u64, event: &str) -> &mut Self {
        self.receive(&format!(r#"{{"t":"{event}","s":{sequence},"op":0,"d":{{}}}}"#))
    }

    fn hello(&mut self) -> &mut Self {
        self.receive(r#"{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250,"_trace":[]}}"#)
    }

    fn ready(&mut self) -> &mut Self {
        self.receive(&format!(
            r#"{{"t":"READY","s":1,"op":0,"d":{{"session_id":"S","resume_gateway_url":"{RESUME_URL}","guilds":[]}}}}"#
        ))
    }

    fn ack(&mut self) -> &mut Self {
        self.receive(r#"{"op":11}"#)
    }

    fn closed(&mut self, code: Option<u16>) -> &mut Self {
        self.feed(Input::Closed { code, corrupt: false, detail: None })
    }

    fn permit(&mut self) -> &mut Self {
        self.feed(Input::Permit(IdentifyPermit::issue()))
    }

    /// From nothing to READY, with a clean slate of outputs.
    fn up(&mut self) -> &mut Self {
        self.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit().ready();
        assert!(self.shard.is_ready());
        self.clear()
    }

    /// Lets the shard be ready for so long that its past is forgotten.
    fn settle(&mut self) -> &mut Self {
        let until = self.now + Timings::default().stable;
        while self.wakes_at.is_some_and(|at| at < until) {
            self.sleep().ack();
        }
        self.now = until;
        self.clear()
    }

    fn clear(&mut self) -> &mut Self {
        self.out.clear();
        self
    }

    /// Moves the clock to where the shard wants to be woken, and wakes it.
    fn sleep(&mut self) -> &mut Self {
        self.now = self.wakes_at.expect("the shard waits for a time");
        self.feed(Input::Timeout)
    }

    /// Sleeps until the shard, which was told to end, has ended: after one closing handshake to the end, or two when it comes
    /// back to end its session at Discord.
    fn end(&mut self) {
        let (told, bound) = (self.now, Timings::default().close * 2);
        let mut sleeps = 0;
        while !self.shard.is_ended() {
            self.sleep();
            sleeps += 1;
            let (state, passed) = (&self.shard.state, self.now - told);
            assert!(passed <= bound && sleeps < 100, "told to end, and still {state:?} after {passed:?}");
        }
    }

    fn wait(&self) -> Duration {
        self.wakes_at.expect("the shard waits for a time") - self.now
    }

    fn sent(&self) -> Vec<&str> {
        self.out
            .iter()
            .filter_map(
                |out| if let Output::Send(payload) = out { Some(payload.text.as_str()) } else { None },
            )
            .collect()
    }

    fn close_code(&self) -> Option<u16> {
        self.out.iter().find_map(|out| if let Output::Close(code) = out { Some(*code) } else { None })
    }

    fn url(&self) -> Option<&str> {
        self.out
            .iter()
            .rev()
            .find_map(|out| if let Output::Connect(url) = out { Some(url.as_str()) } else { None })
    }

    fn disconnected(&self) -> (Reason, Next) {
        let mut found = self.out.iter().filter_map(|out| match out {
            Output::Changed(Change::Disconnected { reason, next, .. }) => Some((*reason, *next)),
            _ => None,
        });
        let first = found.next().expect("it disconnected");
        assert!(found.next().is_none(), "it disconnected once");
        first
    }

    fn has(&self, matches: impl Fn(&Output) -> bool) -> bool {
        self.out.iter().any(matches)
    }

    fn delivered(&self) -> Vec<u64> {
        self.out
            .iter()
            .filter_map(|out| if let Output::Deliver { sequence, .. } = out { Some(*sequence) } else { None })
            .collect()
    }

    /// The connection is gone: runs to the next attempt's `Connect`.
    fn reconnect(&mut self) -> &mut Self {
        self.clear();
        while self.url().is_none() {
            let queued = matches!(self.shard.state, State::Queued { .. });
            if queued {
                self.feed(Input::ConnectGrant)
            } else {
                self.sleep()
            };
        }
        self
    }
}

fn session(sequence: u64) -> Session {
    Session {
        id: "S".into(),
        resume_url: Some(RESUME_URL.into()),
        sequence,
        shard: ShardId(3),
        count: ShardCount::new(16).unwrap(),
        intents: Intents::GUILDS,
        query: Wire::default().query(),
    }
}

const RESUME_42: &str = r#"{"op":6,"d":{"token":"T","session_id":"S","seq":42}}"#;

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
fn gw_110_first_heartbeats_spread_over_the_whole_interval() {
    for random in [0.0, 0.25, 0.999] {
        let mut bench = Bench::new();
        bench.random = random;
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello();
        let wait = INTERVAL.mul_f64(random);
        assert_eq!(bench.shard.heartbeat.as_ref().unwrap().next_at() - bench.now, wait);
    }
}

#[test]
fn gw_111_112_heartbeats_keep_their_beat_and_carry_the_sequence() {
    let mut bench = Bench::new();
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello();
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
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).clear().receive(r#"{"op":7}"#);
    assert_eq!(bench.disconnected().1, Next::Identify { after: Duration::ZERO });
    // GW-173: a connection that fails before Identify gives its place back.
    assert!(bench.has(|out| matches!(out, Output::LeaveQueue)), "its turn is free again");
    bench.closed(None).clear().sleep();
    assert!(bench.has(|out| matches!(out, Output::Enqueue(Priority::ColdStart))));
}

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
        bench.shard.tick(bench.now, &mut || 0.0);
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

/// How one vain attempt goes; the bench is at `Connect` before it.
type Vain = fn(&mut Bench) -> &mut Bench;

/// Every way in which an attempt can do nothing for the session, while Discord says nothing about it.
const VAIN: [(&str, Vain); 10] = [
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
fn try_in_vain(bench: &mut Bench, vain: Vain) {
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
    bench.feed(Input::Start).feed(Input::Connected).hello().clear();
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
    bench.feed(Input::Start).feed(Input::Connected).hello().clear();
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
    bench.feed(Input::Start).feed(Input::Connected).hello().clear();
    bench.dispatch(41, "X").dispatch(42, "X").dispatch(43, "X").dispatch(44, "RESUMED");
    assert_eq!(bench.delivered(), [43, 44]);
    assert!(bench.has(|out| matches!(out, Output::Changed(Change::Resumed { replayed: 1 }))));
}

#[test]
fn what_a_replay_still_brings_while_it_closes_is_marked_and_comes_once() {
    for input in [Input::Reconnect { fresh: false }, Input::Detach] {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.feed(Input::Start).feed(Input::Connected).hello().dispatch(43, "X").feed(input);
        assert!(bench.close_code().is_some());
        bench.clear();
        bench.dispatch(42, "X").dispatch(43, "X").dispatch(44, "X").dispatch(45, "RESUMED").dispatch(46, "X");
        let delivered = bench.out.iter().filter_map(|out| match out {
            Output::Deliver { sequence, replayed } => Some((*sequence, *replayed)),
            _ => None,
        });
        assert_eq!(delivered.collect::<Vec<_>>(), [(44, true), (45, false), (46, false)]);
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

#[test]
fn gw_109_deadline_of_ready() {
    let mut bench = Bench::new();
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit();
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
fn deadline_of_resumed_counts_from_the_last_progress() {
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start).feed(Input::Connected).hello();
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
    let states: [(&str, Vain); 7] = [
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
    let troubles: [(&str, Vain); 9] = [
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
fn a_ready_or_hello_that_cannot_be_read_ends_the_connection() {
    for hello in [
        r#"{"op":10}"#,
        r#"{"op":10,"d":{"heartbeat_interval":0}}"#,
        r#"{"op":10,"d":{"heartbeat_interval":-5}}"#,
        r#"{"op":10,"d":{"heartbeat_interval":1e300}}"#,
    ] {
        let mut bench = Bench::new();
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).receive(hello);
        assert_eq!(bench.close_code(), Some(ours::UNREADABLE), "{hello}");
    }
    let mut bench = Bench::new();
    bench
        .feed(Input::Start)
        .feed(Input::ConnectGrant)
        .feed(Input::Connected)
        .hello()
        .permit()
        .dispatch(1, "READY");
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
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().closed(None).sleep();
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
fn gw_141_a_session_of_another_slot_is_not_used() {
    let other = Session { count: ShardCount::new(8).unwrap(), ..session(42) };
    let mut bench = Bench::with_session(Some(other));
    bench.feed(Input::Start);
    assert!(bench.has(|out| matches!(out, Output::Enqueue(_))));
}

fn presence(name: &str) -> PresenceUpdate {
    PresenceUpdate::new(Presence::new(OnlineStatus::Online).activity(Activity::playing(name))).unwrap()
}

#[test]
fn gw_161_presences_are_limited_and_the_newest_wins() {
    let mut bench = Bench::new();
    bench.up();
    let start = bench.now;
    for number in 0..10 {
        bench.feed(Input::Presence(presence(&format!("game {number}"))));
    }
    assert_eq!(bench.sent().len(), 5);
    while bench.sent().len() < 6 {
        bench.sleep();
    }
    let timings = Timings::default();
    assert_eq!(bench.now - start, timings.presence_window + timings.command_margin);
    assert!(bench.sent()[5].contains("game 9"));
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
fn gw_131_without_a_url_to_resume_at_the_bootstrap_url_has_to_do() {
    let bootstrap = "wss://bootstrap.example/?v=10&encoding=json";
    for url in
        ["null", "7", r#""""#, r#""no url""#, r#""wss:""#, r#""http://r.example""#, r#""ws://r.example""#]
    {
        let mut bench = Bench::new();
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit();
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

/// What a dispatch shows, and whether it came as part of a resume.
fn deliveries(bench: &Bench) -> Vec<(u64, bool)> {
    let delivered = bench.out.iter().filter_map(|out| match out {
        Output::Deliver { sequence, replayed } => Some((*sequence, *replayed)),
        _ => None,
    });
    delivered.collect()
}

#[test]
fn a_resumed_without_a_number_ends_the_replay() {
    for s in ["", r#""s":null,"#, r#""s":"x","#, r#""s":-1,"#] {
        let mut bench = Bench::with_session(Some(session(42)));
        bench.feed(Input::Start).feed(Input::Connected).hello().clear();
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
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit().clear();
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
    let told = bench.out.iter().filter(|out| matches!(out, Output::Odd(Oddity::Unnumbered))).count();
    assert_eq!(told, 1);
    // Also in a replay, where nothing tells whether it came before.
    bench.clear().closed(None).reconnect().feed(Input::Connected).hello().clear();
    bench.dispatch(8, "A").receive(unnumbered).dispatch(9, "A").dispatch(9, "RESUMED");
    assert_eq!(deliveries(&bench), [(8, true), (9, true), (9, false)]);
}

#[test]
fn gw_129_a_gateway_that_answers_as_another_shard_is_asked_twice_and_no_more() {
    let mut bench = Bench::new();
    bench.feed(Input::Start);
    for _ in 0..2 {
        bench.reconnect().feed(Input::Connected).hello().permit().clear();
        bench.receive(r#"{"t":"READY","s":1,"op":0,"d":{"session_id":"S","shard":[0,1]}}"#);
        assert_eq!(bench.disconnected().0, Reason::OtherShard);
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
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit();
        bench.receive(&format!(r#"{{"t":"READY","s":1,"op":0,"d":{{"session_id":"S","shard":{shard}}}}}"#));
        assert!(bench.shard.is_ready(), "{shard}");
        assert_eq!(bench.has(|out| matches!(out, Output::Odd(Oddity::UnreadableShard))), odd, "{shard}");
    }
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
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).clear();
        bench.receive(&format!(r#"{{"op":10,"d":{data}}}"#));
        let told = bench.out.iter().find_map(|out| match out {
            Output::Changed(Change::Hello { heartbeat_interval }) => {
                Some(heartbeat_interval.as_secs_f64() * 1000.0)
            }
            _ => None,
        });
        assert_eq!(told, interval, "{data}");
        assert_eq!(bench.close_code(), interval.is_none().then_some(ours::UNREADABLE), "{data}");
    }
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
fn what_the_peer_said_is_told_with_the_disconnect() {
    let told = |bench: &Bench| {
        bench.out.iter().find_map(|out| match out {
            Output::Changed(Change::Disconnected { detail, .. }) => Some(detail.clone()),
            _ => None,
        })
    };
    let mut bench = Bench::new();
    bench.up().feed(Input::Closed { code: Some(4000), corrupt: false, detail: Some("why".into()) });
    assert_eq!(told(&bench), Some(Some("why".into())));
    bench.clear().reconnect().feed(Input::ConnectFailed);
    assert_eq!(told(&bench), Some(None), "that was another one");
    bench.clear().reconnect().feed(Input::Connected).feed(Input::Unreadable("too much"));
    assert_eq!(told(&bench), Some(Some("too much".into())));
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
    let words: [(&str, Vain); 6] = [
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
fn gw_129_a_ready_for_another_shard_is_not_taken() {
    for (shard, ready) in [("[3,16]", true), ("[4,16]", false), ("[3,17]", false)] {
        let mut bench = Bench::new();
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit();
        bench.receive(&format!(
            r#"{{"t":"READY","s":1,"op":0,"d":{{"session_id":"S","resume_gateway_url":"{RESUME_URL}","shard":{shard}}}}}"#
        ));
        assert_eq!(bench.shard.is_ready(), ready, "{shard}");
    }
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
fn gw_002_an_unreachable_bootstrap_url_is_asked_for_again() {
    let asks = |bench: &Bench| bench.has(|out| matches!(out, Output::AskGateway));
    let mut bench = Bench::new();
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::ConnectFailed);
    assert!(asks(&bench));
    bench.feed(Input::GatewayUrl("wss://other.example".parse().unwrap())).reconnect();
    assert_eq!(bench.url(), Some("wss://other.example/?v=10&encoding=json"));
    // One for Resume is not.
    let mut bench = Bench::with_session(Some(session(42)));
    bench.feed(Input::Start).feed(Input::ConnectFailed);
    assert!(!asks(&bench));
    // An Identify that came too early may have been right by what was known.
    let mut bench = Bench::new();
    bench
        .feed(Input::Start)
        .feed(Input::ConnectGrant)
        .feed(Input::Connected)
        .hello()
        .permit()
        .receive(r#"{"op":9,"d":false}"#);
    assert!(asks(&bench));
}

#[test]
fn gw_041_payload_compression_is_asked_for_in_identify() {
    let mut bench = Bench::new();
    bench.shard.config.wire.payload_compression = true;
    bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit();
    assert!(bench.sent()[0].contains(r#""compress":true"#));
}

#[test]
fn gw_074_a_permit_that_comes_late_is_not_spent() {
    for ready in [false, true] {
        let mut bench = Bench::new();
        bench.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected).hello().permit();
        if ready {
            bench.ready();
        }
        bench.clear().permit();
        assert!(bench.sent().is_empty() && bench.has(|out| matches!(out, Output::LeaveQueue)));
    }
}

/// A guild that the shard of the bench owns.
fn guild(number: u64) -> u64 {
    3 << 22 | number
}

fn members(number: u64) -> Command {
    RequestMembers::prefix(guild(number), "a", 1).command().unwrap()
}

fn bulk(number: u64) -> Input<'static> {
    Input::Command(CommandId(number), members(number))
}

fn voice() -> Input<'static> {
    Input::Command(CommandId(1000), VoiceStateUpdate::leave(guild(1)).into())
}

#[test]
fn gw_029_commands_wait_for_ready_and_voice_goes_first() {
    let mut bench = Bench::new();
    bench.feed(bulk(1)).feed(Input::Presence(presence("p"))).feed(Input::Start).feed(Input::ConnectGrant);
    bench.feed(Input::Connected).hello().permit().feed(voice()).clear();
    bench.receive(r#"{"t":"TYPING_START","s":1,"op":0,"d":{}}"#).ready();
    // The presence was in Identify.
    let opcodes: Vec<&str> = bench.sent().iter().map(|text| &text[..7]).collect();
    assert_eq!(opcodes, [r#"{"op":4"#, r#"{"op":8"#]);
    bench.clear().feed(bulk(2)).feed(voice());
    assert_eq!(bench.sent().len(), 2, "at once");
}

#[test]
fn gw_155_158_159_never_more_than_120_in_any_minute_heartbeats_included() {
    let mut bench = Bench::new();
    bench.up();
    let begin = bench.now;
    // The Identify counts too (GW-156).
    let mut times = vec![begin];
    let mut fed = 0;
    while bench.now < begin + Duration::from_secs(600) {
        while fed < 1000 && bench.shard.check_command(&members(fed)).is_ok() {
            bench.feed(bulk(fed));
            fed += 1;
        }
        let sent = bench.sent().len();
        times.extend(std::iter::repeat_n(bench.now, sent));
        let beats = bench.sent().iter().filter(|text| text.starts_with(r#"{"op":1"#)).count();
        bench.clear();
        if beats > 0 {
            bench.ack();
        }
        bench.sleep();
    }
    assert!(times.len() > 1000, "{}", times.len());
    for (at, time) in times.iter().enumerate() {
        let window = times[at..].iter().take_while(|other| **other - *time < Duration::from_secs(60)).count();
        assert!(window <= 120, "{window} payloads in a minute");
    }
}

#[test]
fn gw_120_a_heartbeat_is_not_late_behind_commands() {
    let mut bench = Bench::new();
    bench.up();
    let due = bench.wakes_at.unwrap();
    for number in 0..200 {
        bench.feed(bulk(number));
    }
    assert_eq!(bench.sent().len(), 104, "Identify, five for heartbeats, ten for what is urgent, and these");
    bench.clear();
    while bench.now < due {
        bench.sleep();
    }
    assert_eq!(bench.now, due);
    assert!(bench.sent().contains(&r#"{"op":1,"d":1}"#));
}

#[test]
fn gw_157_160_commands_survive_a_reconnect_and_its_window_is_new() {
    let mut bench = Bench::new();
    bench.up();
    for number in 0..200 {
        bench.feed(bulk(number));
    }
    bench.closed(None).reconnect().feed(Input::Connected).clear().hello();
    assert_eq!(bench.sent().len(), 1, "the Resume alone");
    bench.clear().receive(r#"{"t":"RESUMED","s":9,"op":0,"d":{}}"#);
    assert_eq!(bench.sent().len(), 200 - 104);
    assert!(bench.sent()[0].contains(&guild(104).to_string()), "in their order");
}

#[test]
fn a_presence_overtakes_500_requests_and_only_the_newest_is_sent() {
    let mut bench = Bench::new();
    bench.up();
    for number in 0..500 {
        bench.feed(bulk(number));
    }
    bench.clear();
    for number in 0..50 {
        bench.feed(Input::Presence(presence(&format!("game {number}"))));
    }
    bench.feed(voice());
    assert_eq!(bench.sent().len(), 6, "five presences and a voice command, at once");
    for _ in 0..4 {
        bench.feed(voice());
    }
    bench.clear().feed(voice());
    assert!(bench.sent().is_empty(), "the window is full");
    let full_until = bench.now + Duration::from_millis(60_250);
    while bench.sent().iter().all(|text| text.starts_with(r#"{"op":1,"#)) {
        bench.sleep();
    }
    assert!(bench.now <= full_until);
    let commands: Vec<&str> =
        bench.sent().into_iter().filter(|text| !text.starts_with(r#"{"op":1,"#)).take(3).collect();
    assert!(commands[0].starts_with(r#"{"op":4,"#), "{commands:?}");
    assert!(commands[1].starts_with(r#"{"op":3,"#) && commands[1].contains("game 49"), "{commands:?}");
    assert!(commands[2].starts_with(r#"{"op":8,"#), "{commands:?}");
}

#[test]
fn commands_that_waited_too_long_are_given_up_by_class_and_say_so() {
    let mut bench = Bench::new();
    bench.up();
    bench.closed(None).feed(voice()).feed(bulk(7)).clear();
    let begin = bench.now;
    let expired = |bench: &Bench, id| {
        bench.has(|out| matches!(out, Output::CommandExpired(CommandId(it)) if *it == id))
    };
    // No connection can be had; the machine wakes for them all the same.
    let mut times = Vec::new();
    for id in [1000, 7] {
        while !expired(&bench, id) {
            assert!(bench.now - begin <= Duration::from_secs(600), "command {id} is never given up");
            bench.clear().sleep();
            bench.feed(Input::ConnectFailed);
        }
        times.push((bench.now - begin).as_secs());
    }
    assert_eq!(times, [90, 600]);
}

#[test]
fn a_command_that_is_not_for_this_shard_is_refused() {
    let bench = Bench::new();
    let refused = |command: Command| bench.shard.check_command(&command).unwrap_err().to_string();
    let elsewhere = Command::raw(ShardId(1), 4, &"").unwrap();
    assert_eq!(refused(elsewhere), "the command belongs on shard 1, not on shard 3");
    let all = RequestMembers::all(guild(1)).with_presences().command().unwrap();
    assert_eq!(
        refused(all),
        "the command needs GUILD_MEMBERS | GUILD_PRESENCES, which the bot did not ask for when it started"
    );
}

#[test]
fn a_shard_that_is_told_to_reconnect_resumes_or_identifies_and_says_why() {
    for (fresh, next) in [(false, 6), (true, 2)] {
        let mut bench = Bench::new();
        bench.up();
        bench.clear().feed(Input::Reconnect { fresh });
        assert!(bench.has(|out| matches!(out, Output::Close(4000..))), "the session stays good");
        let told = |out: &Output| {
            matches!(out, Output::Changed(Change::Disconnected { reason: Reason::Requested, .. }))
        };
        assert!(bench.has(told));
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
fn told_to_start_afresh_between_connections_it_identifies_next() {
    let mut bench = Bench::new();
    bench.up();
    bench.closed(None).feed(Input::Reconnect { fresh: true });
    assert!(bench.has(|out| matches!(out, Output::SessionChanged(None))));
    bench.clear().sleep();
    assert!(bench.has(|out| matches!(out, Output::Enqueue(_))), "{:?}", bench.out);
}

#[test]
fn told_to_reconnect_again_and_again_it_keeps_its_session() {
    let mut bench = Bench::new();
    bench.up();
    for _ in 0..5 {
        bench.feed(Input::Reconnect { fresh: false }).closed(None);
        bench.reconnect().feed(Input::Connected).clear().hello();
        assert!(bench.sent()[0].starts_with(r#"{"op":6,"#), "{:?}", bench.sent());
    }
}

#[test]
fn a_command_without_an_end_to_its_time_waits() {
    let mut bench = Bench::new();
    bench.shard.config.timings.bulk_lifetime = Duration::MAX;
    bench.feed(bulk(1)).up();
    assert!(!bench.has(|out| matches!(out, Output::CommandExpired(_))));
}

#[test]
fn a_presence_that_may_not_have_arrived_is_sent_again_after_a_resume() {
    let mut bench = Bench::new();
    bench.up();
    bench.feed(Input::Presence(presence("lost?")));
    assert_eq!(bench.sent().len(), 1);
    let resumed = |bench: &mut Bench| {
        bench.closed(None).reconnect().feed(Input::Connected).hello().clear().dispatch(2, "RESUMED");
        bench.sent().iter().filter(|text| text.contains("lost?")).count()
    };
    assert_eq!(resumed(&mut bench), 1);
    assert_eq!(resumed(&mut bench), 1, "this one neither");
    bench.sleep().ack();
    assert_eq!(resumed(&mut bench), 0, "what came before a heartbeat that was acknowledged has arrived");
}

#[test]
fn gw_029_197_198_a_presence_waits_for_ready_and_is_in_every_identify() {
    let mut bench = Bench::new();
    bench
        .feed(Input::Presence(presence("early")))
        .feed(Input::Start)
        .feed(Input::ConnectGrant)
        .feed(Input::Connected)
        .hello();
    // GW-028: before Identify nothing goes but heartbeats.
    assert!(bench.sent().is_empty());
    bench.permit();
    assert!(bench.sent()[0].contains("early"));
    bench.clear().feed(Input::Presence(presence("between")));
    assert!(bench.sent().is_empty(), "Identify is out, READY is not in");
    bench.ready();
    // GW-058: op 3 is the presence update.
    assert!(bench.sent()[0].contains(r#""op":3"#) && bench.sent()[0].contains("between"));
    // Kept by a resume, repeated in the next Identify.
    bench.sleep().ack();
    bench.closed(None).reconnect().feed(Input::Connected).hello().clear().dispatch(2, "RESUMED");
    assert!(bench.sent().is_empty());
    bench
        .receive(r#"{"op":9,"d":false}"#)
        .closed(None)
        .reconnect()
        .feed(Input::Connected)
        .hello()
        .clear()
        .permit();
    assert!(bench.sent()[0].contains("between"));
}

#[test]
fn nothing_printed_holds_the_token_or_the_session_id() {
    let mut bench = Bench::with_session(Some(Session { id: "secret-session".into(), ..session(42) }));
    bench.feed(Input::Start).feed(Input::Connected).hello();
    let printed = format!("{:?} {:?}", bench.out, bench.shard);
    assert!(!printed.contains("secret-session") && !printed.contains("token\""), "{printed}");
}

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
        6 => (0_u8..15).prop_map(Step::Feed),
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
                Step::Feed(fresh @ (12 | 13)) => {
                    bench.feed(Input::Reconnect { fresh: fresh == 12 });
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
fn mix_ups_of_shards_count_only_in_a_row() {
    let mut bench = Bench::new();
    bench.feed(Input::Start);
    for _ in 0..3 {
        bench.reconnect().feed(Input::Connected).hello().permit().clear();
        bench.receive(r#"{"t":"READY","s":1,"op":0,"d":{"session_id":"S","shard":[0,1]}}"#);
        assert_eq!(bench.disconnected().0, Reason::OtherShard);
        assert!(!bench.shard.is_ended());
        bench.closed(Some(4904)).reconnect().feed(Input::Connected).hello().permit().ready();
        assert!(bench.shard.is_ready());
        bench.receive(r#"{"op":9,"d":false}"#).closed(None);
    }
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
fn the_time_for_a_replay_stands_still_while_nothing_is_read() {
    let timings = Timings::default();
    let mut bench = Bench::with_session(Some(session(42)));
    bench
        .feed(Input::Start)
        .feed(Input::Connected)
        .hello()
        .dispatch(43, "X")
        .feed(Input::ReadingPaused(true));
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
fn a_session_that_discord_ends_first_is_not_resumed_to_be_ended() {
    let mut bench = Bench::new();
    bench.up().receive(r#"{"op":7,"d":null}"#).feed(Input::Stop).clear();
    bench.receive(r#"{"op":9,"d":false}"#).closed(None);
    assert!(bench.shard.is_ended());
    assert_eq!(bench.url(), None);
}
