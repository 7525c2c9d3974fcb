//! The plan of a run with a reshard: everything that a seed determines before the run begins.

use std::time::Duration;

use fastrand::Rng;
use shardkeeper::config::{Compression, Encoding};
use shardkeeper::dispatch::Service;
use shardkeeper_sim::{Action, ConnectFault, Fault, Host, RestFault, SessionFilter, SessionSettings};

use crate::network::Weather;
use crate::plan::{WIRES, connect_fault, fault, gentle_fault, mood, rest_fault};
use crate::store::Mood;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// No fault that ends a session, and no kill of the process: no event may be lost for whatever reason.
    pub(crate) gentle: bool,
    pub(crate) old: u32,
    /// The new count. The same as the old one means new sessions with the same count.
    pub(crate) new: u32,
    pub(crate) max_concurrency: u32,
    pub(crate) guilds: u32,
    pub(crate) events_per_second: f64,
    /// Whether presences and reactions repeat byte for byte.
    pub(crate) repeating: bool,
    pub(crate) latency: Duration,
    pub(crate) wire: (Compression, Encoding),
    pub(crate) split_frames: bool,
    pub(crate) store_latency: Duration,
    /// The capacity of the subscriber that is judged.
    pub(crate) capacity: usize,
    pub(crate) group_deadline: Duration,
    pub(crate) pause: Duration,
    /// How the sessions of one layout are treated.
    pub(crate) treated: Option<(SessionFilter, SessionSettings)>,
    /// When the operator asks for the reshard.
    pub(crate) begins: Duration,
    /// The steps, ordered by time.
    pub(crate) steps: Vec<(Duration, Step)>,
    /// Whether the run ends with `detach` instead of `stop`.
    pub(crate) detach: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Discord(Action),
    Outage {
        weather: Weather,
        lasts: Duration,
        cut: bool,
    },
    Store {
        mood: Mood,
        lasts: Duration,
    },
    /// One of the shard actors is killed, or its driver panics. The number chooses it among those that exist.
    Shard {
        number: usize,
        drill: bool,
    },
    Service(Service),
    /// The subscriber stops reading for this time.
    Stall(Duration),
    Pause,
    Resume,
    Abort,
    Deploy,
    Kill,
    /// The bot makes calls: of each kind one, for this guild.
    Ask(u32),
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x0005_4a2d);
        let random = &mut random;
        let (old, new) = match random.u32(0..10) {
            0 => (4, 8),
            1 => (4, 6),
            2 => (3, 3),
            _ => {
                let old: u32 = random.u32(1..6);
                // Fewer shards than 2 in 5 would have more guilds than Discord allows.
                (old, random.u32((old * 2).div_ceil(5)..8))
            }
        };
        let gentle = random.u32(0..3) == 0;
        let groups = gcd(old, new);
        let max_concurrency = [1, 2, 16][random.usize(..3)];
        // About as long as the reshard, so that the faults meet each of its phases.
        let takes = u64::from(groups) * 5 + u64::from(new) * 5 / u64::from(max_concurrency) + 5;
        let begins = Duration::from_secs(random.u64(1..20));
        let mut plan = Self {
            seed,
            gentle,
            old,
            new,
            max_concurrency,
            guilds: (old + new) * random.u32(1..3),
            events_per_second: [2.0, 10.0, 40.0][random.usize(..3)],
            repeating: random.bool(),
            latency: Duration::from_millis(if random.bool() { 0 } else { random.u64(1..150) }),
            wire: WIRES[if random.bool() { 0 } else { random.usize(..WIRES.len()) }],
            split_frames: random.u32(0..3) == 0,
            store_latency: Duration::from_millis(random.u64(0..40)),
            capacity: [16, 256, 4096][random.usize(..3)],
            group_deadline: Duration::from_secs([30, 600, 600][random.usize(..3)]),
            pause: Duration::from_secs([0, 0, 10][random.usize(..3)]),
            treated: None,
            begins,
            steps: Vec::new(),
            detach: random.bool(),
        };
        plan.treated = plan.treatment(random);
        let count = random.u32(0..if gentle { 6 } else { 14 });
        let mut steps = Vec::new();
        for _ in 0..count {
            let at = begins + Duration::from_secs(takes).mul_f64(1.3 * random.f64());
            let step = plan.step(random);
            steps.push((at, step));
        }
        steps.sort_by_key(|(at, _)| *at);
        plan.steps = steps;
        plan
    }

    fn treatment(&self, random: &mut Rng) -> Option<(SessionFilter, SessionSettings)> {
        let of = SessionFilter::of_count(if random.bool() { self.old } else { self.new });
        let mut settings = SessionSettings::default();
        match random.u32(0..8) {
            0 => (settings.lag_ms, settings.jitter_ms) = (random.u64(1..3000), random.u64(0..1500)),
            1 => settings.guild_gap_ms = random.u64(1..400),
            2 => settings.missing_guilds = vec![random.u32(0..self.guilds)],
            3 => settings.unavailable_guilds = vec![random.u32(0..self.guilds), random.u32(0..self.guilds)],
            // Without a trace the judge could not tell a repetition that is marked from the next event.
            4 if !self.repeating => settings.reversed_keys = true,
            _ => return None,
        }
        Some((of, settings))
    }

    fn step(&self, random: &mut Rng) -> Step {
        let gentle = self.gentle;
        let guild = random.u32(0..self.guilds);
        let count = if random.bool() { self.old } else { self.new };
        let of = match random.u32(0..6) {
            0 => SessionFilter::all(),
            1 => SessionFilter::of_count(count),
            _ => SessionFilter::of_shard(random.u32(0..count), count),
        };
        match random.u32(0..100) {
            0..34 => {
                let fault = if gentle { gentle_fault(random) } else { fault(random) };
                // Events that only one of two sessions gets twice cannot be told from two events.
                let repeats = matches!(fault, Fault::Duplicate { .. });
                // A session that is silent and acknowledges heartbeats looks like a quiet one: what Discord keeps
                // of it is lost when the session is closed.
                let silent = matches!(fault, Fault::Silence);
                let fault = if repeats || silent { Fault::Cut } else { fault };
                Step::Discord(Action::SessionFault { of, fault })
            }
            34..42 if !gentle => {
                let times = random.usize(1..4);
                Step::Discord(Action::Connect { fault: connect_fault(random), times })
            }
            42..46 => Step::Discord(Action::Rest { fault: rest_fault(random), times: random.usize(1..4) }),
            46..50 if !gentle => Step::Outage {
                weather: if random.bool() { Weather::Refused } else { Weather::Hangs },
                lasts: Duration::from_millis(random.u64(500..60_000)),
                cut: random.bool(),
            },
            50..54 if !gentle => {
                let fault = [ConnectFault::NoReady, ConnectFault::NoHello, ConnectFault::Refuse];
                let (fault, lasts_ms) = (fault[random.usize(..3)], random.u64(1000..60_000));
                Step::Discord(Action::Host { host: Host::Gateway, fault, lasts_ms })
            }
            54..60 => Step::Store { mood: mood(random), lasts: Duration::from_millis(random.u64(1..20_000)) },
            60..69 => Step::Shard { number: random.usize(..), drill: random.bool() },
            69..74 => Step::Service(
                [Service::IdentifyQueue, Service::SessionKeeper, Service::ReshardSentinel][random.usize(..3)],
            ),
            74..77 => Step::Stall(Duration::from_millis(random.u64(100..15_000))),
            77..80 => Step::Pause,
            80..83 => Step::Resume,
            83..86 => Step::Abort,
            86..89 => Step::Deploy,
            89..93 if !gentle => Step::Kill,
            93..96 => Step::Discord(Action::GuildOutage { guild, lasts_ms: random.u64(100..20_000) }),
            _ => Step::Ask(guild),
        }
    }

    /// Whether the run takes seconds in real time.
    pub(crate) fn suits_real_time(&self) -> bool {
        let lasts = |step: &Step| match step {
            Step::Outage { lasts, .. } | Step::Store { lasts, .. } | Step::Stall(lasts) => {
                *lasts < Duration::from_secs(10)
            }
            Step::Discord(Action::Host { lasts_ms, .. }) => *lasts_ms < 10_000,
            Step::Discord(Action::Rest { fault: RestFault::Hang, .. }) => false,
            _ => true,
        };
        gcd(self.old, self.new) <= 3 && self.steps.iter().all(|(_, step)| lasts(step))
    }

    /// The plan with its times adjusted to real time, in which only the waits of the protocol are shorter.
    pub(crate) fn in_real_time(mut self) -> Self {
        self.begins /= 20;
        let begins = self.begins;
        for (at, _) in &mut self.steps {
            // A group takes two seconds at least, which cannot be configured.
            *at = begins + *at / 6;
        }
        self.pause /= 10;
        self.latency /= 10;
        self.group_deadline = Duration::from_secs(600);
        self
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
