//! The machine of a shard: in whatever order things happen, it keeps its promises.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use shardkeeper_proto::shard::{Change, Context};
use shardkeeper_proto::{
    Command, CommandId, Envelope, Grant, IdentifyBudget, IdentifyLimiter, IdentifyPermit, Input, Intents,
    Opcode, Output, Priority, RequestMembers, Shard, ShardConfig, ShardCount, ShardId, Timings, Token,
    VoiceStateUpdate, Wire,
};

const PAYLOADS: [&str; 17] = [
    r#"{"op":10,"d":{"heartbeat_interval":41250}}"#,
    r#"{"op":11}"#,
    r#"{"op":1,"d":null}"#,
    r#"{"op":7,"d":null}"#,
    r#"{"op":9,"d":true}"#,
    r#"{"op":9,"d":false}"#,
    r#"{"t":"READY","s":1,"op":0,"d":{"session_id":"a","resume_gateway_url":"wss://r.example"}}"#,
    r#"{"t":"READY","s":1,"op":0,"d":{}}"#,
    r#"{"t":"RESUMED","s":9,"op":0,"d":{}}"#,
    r#"{"op":99,"d":[]}"#,
    r#"{"op":10,"d":{"heartbeat_interval":-1}}"#,
    r#"{"op":10,"d":{"heartbeat_interval":1}}"#,
    r#"{"op":10,"d":{"heartbeat_interval":"41250"}}"#,
    r#"{"t":"READY","op":0,"d":{"session_id":"a","resume_gateway_url":"","shard":"0"}}"#,
    r#"{"t":"READY","s":1,"op":0,"d":{"session_id":"a","shard":[7,16]}}"#,
    r#"{"t":"RESUMED","s":null,"op":0,"d":null}"#,
    r#"{"t":"TYPING_START","s":"x","op":0,"d":{}}"#,
];
const CODES: [u16; 12] = [1000, 1001, 1006, 4000, 4001, 4002, 4003, 4005, 4007, 4008, 4009, 4999];

fn config() -> ShardConfig {
    ShardConfig {
        token: Token::new("T").expect("a word is a token"),
        shard: ShardId(0),
        count: ShardCount::new(1).expect("one is not zero"),
        intents: Intents::GUILDS,
        large_threshold: 50,
        library: "fuzz".to_owned(),
        gateway_url: "wss://g.example".parse().expect("it is a URL"),
        wire: Wire::default(),
        timings: Timings::default(),
    }
}

/// From a limiter of its own, since a permit cannot be had otherwise.
fn permit(now: Instant) -> IdentifyPermit {
    let budget = IdentifyBudget::new(now, 1000, 1000, Duration::ZERO, 0);
    let mut limiter = IdentifyLimiter::new(1, Duration::from_secs(5), budget);
    limiter.claim(ShardId(0), Priority::ColdStart);
    loop {
        match limiter.poll(now) {
            Some(Grant::Identify(_, permit)) => return permit,
            Some(_) => {}
            None => panic!("a fresh limiter grants at once"),
        }
    }
}

struct World {
    shard: Shard,
    now: Instant,
    wakes_at: Option<Instant>,
    permits: usize,
    last: Option<u64>,
    /// It was told to give its session up: only then may a code end it.
    stopping: bool,
}

impl World {
    fn feed(&mut self, input: Input<'_>, chance: u8) {
        let random = f64::from(chance) / 256.0;
        self.shard.handle_input(&mut Context::new(self.now, &mut || random), input);
        loop {
            match self.shard.poll_output() {
                Output::Timeout(at) => {
                    self.wakes_at = at;
                    break;
                }
                Output::Send(payload) if payload.is(Opcode::Identify) => {
                    assert!(self.permits > 0, "an Identify without a permit");
                    self.permits -= 1;
                }
                Output::Send(payload) => assert!(payload.text.len() <= 4096),
                Output::SessionChanged(_) => self.last = None,
                Output::Close(code) => {
                    assert!(
                        code >= 4000 || self.stopping,
                        "a session that is to be resumed is closed with {code}"
                    );
                }
                Output::Changed(Change::Refused(refusal)) => assert!(refusal.code.0 >= 4004),
                _ => {}
            }
        }
        if let Some(session) = self.shard.session() {
            assert!(self.last.is_none_or(|last| session.sequence >= last), "a sequence runs back");
            self.last = Some(session.sequence);
        }
        let waits = !self.shard.is_ready() && !self.shard.is_ended();
        assert!(!waits || self.wakes_at.is_some(), "it waits for ever: {:?}", self.shard);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let start = Instant::now();
    let shard = Shard::new(config(), None);
    let mut world = World { shard, now: start, wakes_at: None, permits: 0, last: None, stopping: false };
    world.feed(Input::Start, 0);
    for step in bytes.chunks_exact(3) {
        let (kind, value, chance) = (step[0] % 20, step[1], step[2]);
        match kind {
            0 => world.feed(Input::Connected, chance),
            1 => world.feed(Input::ConnectFailed, chance),
            2 => world.feed(Input::ConnectGrant, chance),
            3 => {
                world.permits = 1;
                let permit = permit(world.now);
                world.feed(Input::Permit(permit), chance);
                world.permits = 0;
            }
            4 => world.feed(Input::Malformed, chance),
            5 => world.feed(Input::QueueReplaced, chance),
            6 => world.feed(Input::ReadingPaused(value & 1 == 1), chance),
            7 => world.feed(Input::Closed { code: None, corrupt: value & 1 == 1, detail: None }, chance),
            8 => {
                let code = CODES[usize::from(value) % CODES.len()];
                world.feed(Input::Closed { code: Some(code), corrupt: false, detail: None }, chance);
            }
            9 => world.feed(Input::ConnectDelayed(Duration::from_millis(u64::from(value) * 10)), chance),
            10 => {
                let command =
                    Command::members(&RequestMembers::all(u64::from(value) << 22)).expect("it is sound");
                world.feed(Input::Command(CommandId(0), command), chance);
            }
            11 => {
                let update =
                    VoiceStateUpdate { guild_id: 1, channel_id: None, self_mute: false, self_deaf: false };
                world.feed(Input::Command(CommandId(0), update.into()), chance);
            }
            18 => world.feed(Input::Unreadable("fuzz"), chance),
            19 => world.feed(Input::Probe(u64::from(value)), chance),
            12 => world.feed(Input::Reconnect { fresh: value & 1 == 1 }, chance),
            13 => {
                let text = format!(r#"{{"t":"TYPING_START","s":{value},"op":0,"d":{{}}}}"#);
                let envelope = Envelope::split(text.as_bytes()).expect("it is sound");
                world.feed(Input::Payload(&envelope), chance);
            }
            14..=16 => {
                let text = PAYLOADS[usize::from(value) % PAYLOADS.len()];
                let envelope = Envelope::split(text.as_bytes()).expect("it is sound");
                world.feed(Input::Payload(&envelope), chance);
            }
            17 => {
                world.now += Duration::from_millis(u64::from(value) * 500);
                world.feed(Input::Timeout, chance);
            }
            _ => {
                if let Some(at) = world.wakes_at {
                    world.now = world.now.max(at);
                    world.feed(Input::Timeout, chance);
                }
            }
        }
    }
    // However it stands, it can be ended, and needs nobody's help for it.
    world.stopping = bytes.len() % 2 == 0;
    let end = if world.stopping { Input::Stop } else { Input::Detach };
    world.feed(end, 0);
    for _ in 0..16 {
        if world.shard.is_ended() {
            return;
        }
        world.now = world.wakes_at.expect("it waits for a time");
        world.feed(Input::Timeout, 0);
    }
    panic!("it does not end");
});
