//! The plan of a run: everything that a seed determines before the run begins.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use shardkeeper::Overflow;
use shardkeeper::config::{Compression, Encoding, RestartBy};
use shardkeeper::dispatch::Service;
use shardkeeper_sim::{Action, ConnectFault, Fault, Host, Mix, Odd, RestFault};

use crate::network::Weather;
use crate::store::Mood;

pub(crate) const WIRES: [(Compression, Encoding); 7] = [
    (Compression::ZlibStream, Encoding::Json),
    (Compression::None, Encoding::Json),
    (Compression::ZstdStream, Encoding::Json),
    (Compression::Payload, Encoding::Json),
    (Compression::None, Encoding::Etf),
    (Compression::ZlibStream, Encoding::Etf),
    (Compression::ZstdStream, Encoding::Etf),
];

/// Oddities of gateways other than Discord's, none of which may affect a client.
const ODD: [Odd; 16] = [
    Odd::HelloFloat,
    Odd::HelloText,
    Odd::HelloBare,
    Odd::ReadyOddShard,
    Odd::ReadyWithoutShard,
    Odd::ResumedUnnumbered,
    Odd::ResumedBare,
    Odd::NumbersAsText,
    Odd::TextFrames,
    Odd::SomeTextFrames,
    Odd::BinaryFrames,
    Odd::FramePerMessage,
    Odd::TwoInOne,
    Odd::KeepAliveUpgrade,
    Odd::Spaced,
    Odd::Strangers,
];

/// The kind of a run: determines the choice of faults and the additional checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// No fault that ends a session, so no more Identify than there are shards.
    Gentle,
    /// All faults except a permanent refusal by Discord.
    Rough,
    /// All faults; at the end Discord refuses the bot with this close code.
    Fatal(u16),
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) class: Class,
    pub(crate) shards: u32,
    pub(crate) max_concurrency: u32,
    /// How many Identify are left at the start.
    pub(crate) identify_remaining: u32,
    pub(crate) guilds: u32,
    pub(crate) large_guild_members: u32,
    pub(crate) events_per_second: f64,
    pub(crate) mix: Mix,
    pub(crate) replay_limit: usize,
    pub(crate) split_frames: bool,
    /// How many different resume URLs there are.
    pub(crate) resume_hosts: u64,
    pub(crate) wire: (Compression, Encoding),
    pub(crate) latency: Duration,
    /// How many of the shards run in a second process.
    pub(crate) elsewhere: u32,
    /// Whether the processes share the pace of Identify through a gate.
    pub(crate) gate: bool,
    /// How sessions pass from one process to the next.
    pub(crate) store: Storing,
    pub(crate) subscribers: Vec<Habit>,
    /// The steps, ordered by time.
    pub(crate) steps: Vec<(Duration, Step)>,
    /// Whether the run ends with `detach` instead of `stop`.
    pub(crate) detach: bool,
}

/// How sessions pass between processes: by hand, or through a store in each place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storing {
    pub(crate) is_used: bool,
    /// The longest time that a save takes in a working store.
    pub(crate) latency: Duration,
    /// How the stores work after the faults have ended.
    pub(crate) in_the_end: Mood,
}

/// The behaviour of a subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    /// Whether the subscriber wants all events, or only messages.
    pub(crate) everything: bool,
    /// The subscriber takes a break after this many deliveries.
    pub(crate) breaks_after: u32,
    pub(crate) breaks_for: Duration,
    /// How many deliveries the subscriber holds before it finishes the first one.
    pub(crate) holds: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Subscribed from before the start of a process until its end.
    Steady,
    /// Unsubscribes after this time, and subscribes again.
    Fickle { stays: Duration },
    /// An actor, subscribed after the start of the process.
    Actor,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Discord(Action),
    /// For this time no connection can be made; open ones may be cut first.
    Outage {
        weather: Weather,
        lasts: Duration,
        cut: bool,
    },
    /// The store of a place behaves like this for a time.
    Store {
        place: usize,
        mood: Mood,
        lasts: Duration,
    },
    /// The wall clock of a place is set ahead or back.
    Jump {
        place: usize,
        ms: i64,
    },
    Crash(Crash),
    Operate(Operation),
    Ask(Ask),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// The driver of a shard panics.
    Driver(u32),
    /// The actor of a shard is killed, or stopped from outside.
    Actor { shard: u32, kill: bool },
    /// A service that a process has for all its shards is killed.
    Service { process: usize, service: Service },
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Shards move to the other process with their sessions.
    Move {
        shards: Vec<u32>,
    },
    Restart {
        shard: u32,
        by: RestartBy,
    },
    /// A process detaches, and its successor starts with the sessions.
    Deploy {
        process: usize,
    },
    /// A process is killed; its successor starts with the sessions of that moment, or without any.
    Kill {
        process: usize,
        forgets: bool,
        /// Whether the store is compared with the sessions right before.
        watched: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Status,
    Presence {
        shard: Option<u32>,
        number: u32,
    },
    Voice {
        guild: u32,
    },
    Members {
        guild: u32,
        all: bool,
    },
    Sounds {
        guild: u32,
    },
    /// Sends this many commands at once.
    Flood {
        guild: u32,
        count: u32,
    },
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x5eed);
        let random = &mut random;
        let class = match random.u32(0..20) {
            0..5 => Class::Gentle,
            5 => Class::Fatal([4004, 4010, 4011, 4012, 4013, 4014][random.usize(..6)]),
            _ => Class::Rough,
        };
        let shards = match random.u32(0..40) {
            0..20 => random.u32(1..4),
            20..34 => random.u32(4..8),
            34..39 => random.u32(8..16),
            _ => random.u32(16..33),
        };
        // Runs with more shards last shorter, so that all runs cost about the same.
        let minutes = match random.u32(0..20) {
            0 => random.u64(60..180),
            1..10 => random.u64(10..30),
            _ => random.u64(3..10),
        };
        let lasts = Duration::from_secs(60 * minutes / u64::from(shards.div_ceil(4)));
        let latency = if random.u32(0..5) < 2 { random.u64(1..150) } else { 0 };
        let several = shards > 1 && !matches!(class, Class::Fatal(_));
        let elsewhere = if several && random.u32(0..4) == 0 { random.u32(1..shards) } else { 0 };
        let few = class != Class::Gentle && random.u32(0..12) == 0;
        let mut plan = Self {
            seed,
            class,
            shards,
            max_concurrency: [1, 1, 1, 2, 4, 16][random.usize(..6)],
            identify_remaining: if few { 10 + shards + random.u32(0..6) } else { 1000 },
            guilds: shards * random.u32(1..3),
            large_guild_members: random.u32(10..60),
            events_per_second: f64::from(shards) * [0.02, 0.1, 0.3, 1.0][random.usize(..4)]
                / (minutes as f64 / 8.0).max(1.0),
            mix: if random.bool() { Mix::Busy } else { Mix::Everything },
            replay_limit: if class == Class::Gentle || random.u32(0..4) > 0 { 20_000 } else { 100 },
            split_frames: random.u32(0..3) == 0,
            resume_hosts: [1, 3, u64::MAX][random.usize(..3)],
            wire: WIRES[if random.bool() { 0 } else { random.usize(..WIRES.len()) }],
            latency: Duration::from_millis(latency),
            elsewhere,
            gate: true,
            store: Storing::new(random),
            subscribers: Vec::new(),
            steps: Vec::new(),
            detach: random.bool(),
        };
        plan.subscribers = plan.habits(random);
        plan.steps = plan.steps(lasts, random);
        let stored = plan.store.is_used && plan.store.in_the_end == Mood::Fine;
        let several = elsewhere > 0 || plan.steps.iter().any(|(_, step)| step.hides_an_identify(stored));
        plan.gate = several || random.u32(0..3) == 0;
        plan
    }

    /// Whether no subscriber blocks its shards from reading for longer than Discord waits for an answer.
    pub(crate) fn reads_always(&self) -> bool {
        self.subscribers.iter().all(|habit| {
            habit.overflow != Overflow::Wait || (habit.capacity > 1000 && habit.breaks_for.is_zero())
        })
    }

    /// Whether shards or processes may restart with less state than before.
    pub(crate) fn breaks_down(&self) -> bool {
        let breaks = |step: &Step| match step {
            Step::Crash(_) => true,
            Step::Operate(operation) => !matches!(operation, Operation::Restart { .. }),
            _ => false,
        };
        self.steps.iter().any(|(_, step)| breaks(step))
    }

    /// The largest number of Identify in a row that may fail: those that a fault answers, and a few that
    /// coincide with others.
    pub(crate) fn refused_identifies(&self) -> u32 {
        let refused = |(_, step): &(Duration, Step)| match step {
            Step::Discord(Action::Connect { fault, times }) if refuses_identify(*fault) => *times as u32,
            // The waits between attempts double, so no more attempts fit into the time of the fault.
            Step::Discord(Action::Host { fault, lasts_ms, .. }) if refuses_identify(*fault) => {
                (lasts_ms / 5000 + 1).ilog2() + 1
            }
            _ => 0,
        };
        self.steps.iter().map(refused).sum::<u32>() + 2
    }

    /// How often one actor crashes at most.
    pub(crate) fn most_crashes(&self) -> u32 {
        let mut crashes = BTreeMap::new();
        for (_, step) in &self.steps {
            if let Step::Crash(crash) = step {
                let who = match crash {
                    Crash::Driver(shard) | Crash::Actor { shard, .. } => format!("{shard}"),
                    Crash::Service { process, service } => format!("{service} of {process}"),
                };
                *crashes.entry(who).or_insert(0) += 1;
            }
        }
        crashes.into_values().max().unwrap_or(0)
    }

    fn habits(&self, random: &mut Rng) -> Vec<Habit> {
        let fast = Habit {
            capacity: 4096,
            overflow: Overflow::Wait,
            everything: true,
            breaks_after: 1,
            breaks_for: Duration::ZERO,
            holds: 0,
            kind: Kind::Steady,
        };
        let mut habits = vec![fast];
        for _ in 0..random.usize(..4) {
            let overflow = match random.u32(0..4) {
                0 => Overflow::DropOldest,
                1 => Overflow::DropNewest,
                _ => Overflow::Wait,
            };
            let (breaks_after, breaks_for) = match random.u32(0..5) {
                0 => (1, random.u64(1..300)),
                1 => (random.u32(1..50), random.u64(1000..10_000)),
                // Slow subscribers take breaks of several minutes.
                2 if self.class != Class::Gentle => (random.u32(10..500), random.u64(30_000..600_000)),
                _ => (1, 0),
            };
            let kind = match random.u32(0..6) {
                0 => Kind::Fickle { stays: Duration::from_secs(random.u64(5..300)) },
                1 => Kind::Actor,
                _ => Kind::Steady,
            };
            // A lossless subscriber that is too slow would block its shards until their sessions are too old.
            let keeps_up = f64::from(breaks_after) / self.events_per_second / 4.0;
            let breaks_for = match overflow {
                Overflow::Wait if self.class == Class::Gentle => breaks_for.min((keeps_up * 1000.0) as u64),
                _ => breaks_for,
            };
            habits.push(Habit {
                capacity: [1, 4, 16, 64, 1024][random.usize(..5)],
                overflow,
                everything: random.u32(0..4) > 0,
                breaks_after,
                breaks_for: Duration::from_millis(breaks_for),
                holds: if random.u32(0..3) == 0 { random.usize(1..8) } else { 0 },
                kind,
            });
        }
        habits
    }

    fn steps(&self, lasts: Duration, random: &mut Rng) -> Vec<(Duration, Step)> {
        // A session that has just begun, or is being resumed, may not survive what an established one does.
        let gentle = self.class == Class::Gentle;
        let begin = if gentle { 60 + 6 * self.shards } else { 0 };
        let begin = Duration::from_secs(begin.into());
        let count = random.usize(4..if gentle { 20 } else { 40 });
        let mut steps: Vec<(Duration, Step)> = Vec::new();
        let mut at = begin;
        for _ in 0..count {
            // The pauses between steps are random, so sometimes many steps come at once.
            let pause = lasts.mul_f64(2.0 * random.f64() / count as f64);
            at += match random.u32(0..4) {
                0 if !gentle => Duration::from_millis(random.u64(0..300)),
                _ if gentle => pause.max(Duration::from_secs(100)),
                _ => pause,
            };
            let step = self.step(random);
            // A client does not notice a silent connection until Discord ends it.
            if let Step::Discord(Action::Fault { shard, fault: Fault::Silence }) = step {
                let until = at + Duration::from_secs(random.u64(1..60));
                steps.push((until, Step::Discord(Action::Fault { shard, fault: Fault::Cut })));
            }
            let breaks_a_host = matches!(step, Step::Discord(Action::Host { .. }));
            steps.push((at, step));
            // Shards with an open connection do not notice a host that refuses new ones.
            if breaks_a_host && random.u32(0..4) > 0 {
                let shard = if random.bool() { None } else { Some(random.u32(0..self.shards)) };
                steps.push((at, Step::Discord(Action::Fault { shard, fault: Fault::Cut })));
            }
        }
        steps.sort_by_key(|(at, _)| *at);
        steps
    }

    fn step(&self, random: &mut Rng) -> Step {
        let shard = random.u32(0..self.shards);
        // The bot may be removed from the last guild, and a command for it would then be the bot's own
        // mistake.
        let last = self.guilds - 1;
        let guild = random.u32(0..last.max(1));
        let process = if self.elsewhere > 0 { random.usize(..2) } else { 0 };
        let gentle = self.class == Class::Gentle;
        if self.store.is_used && random.u32(0..4) == 0 {
            return self.store_step(process, random);
        }
        match random.u32(0..100) {
            0..6 => Step::Discord(self.broken_host(random)),
            6..40 => Step::Discord(Action::Fault {
                shard: (gentle || random.u32(0..8) > 0).then_some(shard),
                fault: if gentle { gentle_fault(random) } else { fault(random) },
            }),
            40..48 if !gentle => {
                let times = random.usize(1..4);
                Step::Discord(Action::Connect { fault: connect_fault(random), times })
            }
            48..51 if !gentle => {
                let times = random.usize(1..4);
                Step::Discord(Action::Rest { fault: rest_fault(random), times })
            }
            51..54 if !gentle => Step::Outage {
                weather: if random.bool() { Weather::Refused } else { Weather::Hangs },
                lasts: Duration::from_secs(random.u64(1..600)),
                cut: random.u32(0..4) > 0,
            },
            40..60 => {
                Step::Discord(Action::Emit { shard, count: random.usize(1..150), event: None, data: None })
            }
            60..63 => Step::Discord(match random.u32(0..3) {
                // The simulator's clock jumps, so that all sessions age at once.
                _ if !gentle && random.u32(0..10) == 0 => Action::ClockJump { ms: random.u64(1000..300_000) },
                0 => Action::GuildOutage { guild, lasts_ms: random.u64(1000..60_000) },
                1 if last > 0 => Action::GuildLeave { guild: last },
                _ => Action::GuildJoin { guild: last },
            }),
            63..69 => Step::Crash(Crash::Driver(shard)),
            69..72 => Step::Crash(Crash::Actor { shard, kill: random.bool() }),
            72..74 => {
                let service = if random.bool() { Service::IdentifyQueue } else { Service::ReshardSentinel };
                Step::Crash(Crash::Service { process, service })
            }
            74..79 if self.elsewhere > 0 => {
                let shards = (0..self.shards).filter(|_| random.u32(0..3) == 0).collect();
                Step::Operate(Operation::Move { shards })
            }
            74..79 => {
                let by = if gentle || random.bool() { RestartBy::Resume } else { RestartBy::Identify };
                Step::Operate(Operation::Restart { shard, by })
            }
            79..82 => Step::Operate(Operation::Deploy { process }),
            82..84 => {
                let forgets = !gentle && random.u32(0..4) == 0;
                Step::Operate(Operation::Kill { process, forgets, watched: random.bool() })
            }
            _ => Step::Ask(match random.u32(0..8) {
                0 => Ask::Status,
                1 => Ask::Presence { shard: None, number: random.u32(..) },
                2 => Ask::Presence { shard: Some(shard), number: random.u32(..) },
                3 => Ask::Members { guild, all: true },
                4 => Ask::Members { guild, all: false },
                5 => Ask::Sounds { guild },
                6 => Ask::Flood { guild, count: random.u32(1..200) },
                _ => Ask::Voice { guild },
            }),
        }
    }

    /// A host that does not work for a while. No session ends because of it if that is shorter than Discord
    /// keeps sessions.
    fn broken_host(&self, random: &mut Rng) -> Action {
        let gentle = self.class == Class::Gentle;
        let host = match random.u32(0..4) {
            0 => Host::Gateway,
            1 => Host::Resume(random.u64(0..self.resume_hosts.min(u64::from(2 * self.shards)))),
            _ => Host::Any,
        };
        let longest = if gentle || random.bool() { 30_000 } else { 600_000 };
        let lasts_ms = random.u64(1000..longest);
        let fault = match random.u32(0..if gentle { 8 } else { 10 }) {
            0 => ConnectFault::Refuse,
            1 => ConnectFault::Hang,
            2 => ConnectFault::RetryLater { status: 503, seconds: random.u32(1..20) },
            3 => ConnectFault::NoHello,
            4 => ConnectFault::ReconnectInsteadOfHello,
            5 => ConnectFault::CloseInsteadOfHello { code: [1001, 1012, 4000][random.usize(..3)] },
            6 | 7 => ConnectFault::CloseResume {
                code: [1000, 1001, 1011, 1012, 1013, 4000, 4001, 4002, 4005, 4008][random.usize(..10)],
            },
            8 => ConnectFault::NoReady,
            _ => ConnectFault::Close { code: [1012, 4000][random.usize(..2)] },
        };
        Action::Host { host, fault, lasts_ms }
    }

    fn store_step(&self, place: usize, random: &mut Rng) -> Step {
        match random.u32(0..20) {
            0..9 => Step::Store {
                place,
                mood: mood(random),
                lasts: Duration::from_millis(random.u64(1..120_000)),
            },
            9..11 => Step::Crash(Crash::Service { process: place, service: Service::SessionKeeper }),
            11..13 => {
                let ms = [10_000, 600_000, 7_200_000, 100 * 24 * 3_600_000][random.usize(..4)];
                Step::Jump { place, ms: random.i64(-ms..ms) }
            }
            13..16 => Step::Operate(Operation::Deploy { process: place }),
            _ => Step::Operate(Operation::Kill { process: place, forgets: false, watched: random.bool() }),
        }
    }
}

impl Storing {
    fn new(random: &mut Rng) -> Self {
        Self {
            is_used: random.u32(0..4) > 0,
            latency: Duration::from_millis(random.u64(0..40)),
            in_the_end: if random.u32(0..4) == 0 { mood(random) } else { Mood::Fine },
        }
    }
}

pub(crate) fn mood(random: &mut Rng) -> Mood {
    [Mood::Slow, Mood::Fails, Mood::Flaky, Mood::Hangs, Mood::Panics][random.usize(..5)]
}

impl Step {
    /// Whether the next process may not know when this one has identified. A store, if there is one, tells
    /// it.
    fn hides_an_identify(&self, stored: bool) -> bool {
        match self {
            Self::Operate(Operation::Deploy { .. }) => !stored,
            Self::Operate(Operation::Kill { .. }) | Self::Store { .. } | Self::Jump { .. } => true,
            _ => false,
        }
    }
}

/// A random fault that no session ends by.
pub(crate) fn gentle_fault(random: &mut Rng) -> Fault {
    match random.u32(0..14) {
        0 => Fault::StopAcking,
        1 => Fault::Reconnect,
        2 => Fault::InvalidSession { resumable: true },
        3 => Fault::Close { code: 4000 },
        4 | 5 => Fault::Cut,
        6 => Fault::HalfOpen,
        7 => Fault::RequestHeartbeat,
        8 => Fault::Corrupt,
        9 => Fault::Truncate,
        10 => Fault::Silence,
        11 => Fault::Duplicate { count: random.u32(1..5) },
        12 => Fault::Gap { count: random.u32(1..50) },
        _ => Fault::Odd,
    }
}

pub(crate) fn fault(random: &mut Rng) -> Fault {
    match random.u32(0..9) {
        0 => Fault::InvalidSession { resumable: false },
        1 => Fault::Close {
            code: [1000, 1001, 4000, 4001, 4002, 4003, 4005, 4006, 4007, 4008, 4009][random.usize(..11)],
        },
        2 => Fault::StallReading,
        3 => Fault::SlowWriting { bytes_per_second: random.u32(500..50_000) },
        4 => Fault::Reorder,
        5 if random.u32(0..4) == 0 => Fault::Huge { bytes: random.u32(10_000..500_000) },
        _ => gentle_fault(random),
    }
}

pub(crate) fn connect_fault(random: &mut Rng) -> ConnectFault {
    match random.u32(0..11) {
        0 => ConnectFault::Refuse,
        1 => ConnectFault::Hang,
        2 => ConnectFault::Status { status: [403, 429, 500, 502, 503][random.usize(..5)] },
        3 => ConnectFault::NoHello,
        4 => ConnectFault::ReconnectInsteadOfHello,
        5 => ConnectFault::NoReady,
        6 => ConnectFault::RefuseResume,
        7 => ConnectFault::InvalidIdentify,
        8 | 9 => ConnectFault::Odd(ODD[random.usize(..ODD.len())]),
        _ => ConnectFault::Close { code: [1000, 4000, 4003, 4006, 4007, 4008, 4009][random.usize(..7)] },
    }
}

fn refuses_identify(fault: ConnectFault) -> bool {
    matches!(fault, ConnectFault::NoReady | ConnectFault::InvalidIdentify | ConnectFault::Close { .. })
}

pub(crate) fn rest_fault(random: &mut Rng) -> RestFault {
    match random.u32(0..6) {
        0 => RestFault::Status([408, 500, 502, 503][random.usize(..4)]),
        1 => RestFault::Page(502),
        2 => RestFault::Hang,
        3 => RestFault::Cut,
        4 => RestFault::Garbage,
        _ => RestFault::RateLimited { retry_after_ms: random.u32(100..60_000), global: random.bool() },
    }
}
