//! The machine, driven by a plain loop with a virtual clock.

mod any_order;
mod endings;
mod heartbeats;
mod identifying;
mod invalid_sessions;
mod odd_peers;
mod reactions;
mod resuming;
mod sending;
mod stopping;
mod vain_attempts;

use super::*;
use crate::{Activity, OnlineStatus, Presence, RequestMembers, VoiceStateUpdate};

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
        self.shard.handle_input(&mut Context::new(self.now, &mut || random), input);
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

    /// Without a session: from the start to an open connection, before Hello.
    fn connect(&mut self) -> &mut Self {
        self.feed(Input::Start).feed(Input::ConnectGrant).feed(Input::Connected)
    }

    /// Without a session: from the start to the Identify.
    fn identify(&mut self) -> &mut Self {
        self.connect().hello().permit()
    }

    /// With a session: from the start to the Resume.
    fn resume(&mut self) -> &mut Self {
        self.feed(Input::Start).feed(Input::Connected).hello()
    }

    /// From nothing to READY, with a clean slate of outputs.
    fn up(&mut self) -> &mut Self {
        self.identify().ready();
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
        let (reported, bound) = (self.now, Timings::default().close * 2);
        let mut sleeps = 0;
        while !self.shard.is_ended() {
            self.sleep();
            sleeps += 1;
            let (state, passed) = (&self.shard.state, self.now - reported);
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

/// Something that happens to the shard of a bench.
type Act = fn(&mut Bench) -> &mut Bench;

fn presence(name: &str) -> PresenceUpdate {
    PresenceUpdate::new(Presence::new(OnlineStatus::Online).activity(Activity::playing(name))).unwrap()
}

/// What a dispatch shows, and whether it came as part of a resume.
fn deliveries(bench: &Bench) -> Vec<(u64, bool)> {
    let delivered = bench.out.iter().filter_map(|out| match out {
        Output::Deliver { sequence, replayed } => Some((*sequence, *replayed)),
        _ => None,
    });
    delivered.collect()
}

/// A guild that the shard of the bench owns.
fn guild(number: u64) -> u64 {
    3 << 22 | number
}

fn members(number: u64) -> Command {
    Command::members(&RequestMembers::prefix(guild(number), "a", 1)).unwrap()
}

fn bulk(number: u64) -> Input<'static> {
    Input::Command(CommandId(number), members(number))
}

fn voice() -> Input<'static> {
    Input::Command(CommandId(1000), VoiceStateUpdate::leave(guild(1)).into())
}
