//! Property tests of the limiter: its limits hold whatever shards do, in any order.

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(5);
/// The time from a grant to connect until Hello, for a shard that works.
const HELLO: Duration = Duration::from_millis(100);
const SHARDS: u32 = 8;
const TOTAL: u32 = 20;
const FLOOR: u32 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u32, Priority),
    Claim(u32, Priority),
    /// The connection of the shard begins this much later.
    Delay(u32, Duration),
    Leave(u32),
    Withdraw(u32),
    GiveBack(u32),
    /// The shard writes the Identify of its permit, and the limiter learns of it this much later.
    Send(u32, Duration),
    /// An earlier limiter issued a permit to this shard.
    Hold(u32),
    HoldAll,
    Update {
        max_concurrency: u32,
        remaining: u32,
        reset_after: Duration,
    },
    Advance(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    let priority = prop::sample::select(vec![Priority::LostSession, Priority::ColdStart, Priority::Reshard]);
    let millis = |range| prop::strategy::Strategy::prop_map(range, Duration::from_millis);
    prop_oneof![
        6 => (shard.clone(), priority.clone()).prop_map(|(shard, priority)| Step::Join(shard, priority)),
        6 => (shard.clone(), priority).prop_map(|(shard, priority)| Step::Claim(shard, priority)),
        3 => (shard.clone(), millis(0_u64..30_000)).prop_map(|(shard, wait)| Step::Delay(shard, wait)),
        1 => shard.clone().prop_map(Step::Leave),
        1 => shard.clone().prop_map(Step::Withdraw),
        1 => shard.clone().prop_map(Step::GiveBack),
        6 => (shard.clone(), millis(0_u64..1000)).prop_map(|(shard, late)| Step::Send(shard, late)),
        1 => shard.prop_map(Step::Hold),
        1 => Just(Step::HoldAll),
        2 => (1_u32..=5, 0..=TOTAL, millis(0_u64..100_000)).prop_map(
            |(max_concurrency, remaining, reset_after)| Step::Update { max_concurrency, remaining, reset_after }
        ),
        6 => millis(0_u64..12_000).prop_map(Step::Advance),
    ]
}

/// A waiting shard, as known from the calls of the limiter.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    priority: Priority,
    at_hello: bool,
    /// Whether the shard was allowed to connect.
    called: bool,
}

/// A limiter, and what its calls and grants show from outside.
struct Bench {
    limiter: IdentifyLimiter,
    max_concurrency: u32,
    now: Instant,
    waiting: BTreeMap<u32, Waiting>,
    /// When the last of the delayed connections begins.
    delayed_until: Instant,
    /// The shards that hold a permit.
    out: BTreeSet<u32>,
    /// The time and shard of each Identify; `None` for an unknown shard.
    sent: Vec<(Instant, Option<u32>)>,
}

impl Bench {
    fn new(max_concurrency: u32) -> Self {
        let now = Instant::now();
        let budget = IdentifyBudget::new(now, TOTAL, TOTAL, Duration::ZERO, FLOOR);
        Self {
            limiter: IdentifyLimiter::new(max_concurrency, WINDOW, budget),
            max_concurrency,
            now,
            waiting: BTreeMap::new(),
            delayed_until: now,
            out: BTreeSet::new(),
            sent: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join(shard, priority) => {
                self.limiter.join(ShardId(shard), priority);
                self.waits(shard, priority);
            }
            Step::Claim(shard, priority) => {
                self.limiter.claim(ShardId(shard), priority);
                self.waits(shard, priority).at_hello = true;
            }
            Step::Delay(shard, wait) => {
                self.limiter.connects_at(ShardId(shard), self.now + wait);
                if self.on_their_way().any(|other| other == shard) {
                    self.delayed_until = self.delayed_until.max(self.now + wait);
                }
            }
            Step::Leave(shard) => {
                self.limiter.leave(ShardId(shard));
                self.waiting.remove(&shard);
                self.out.remove(&shard);
            }
            Step::Withdraw(shard) => {
                self.limiter.withdraw(ShardId(shard));
                self.waiting.remove(&shard);
            }
            Step::GiveBack(shard) => {
                self.limiter.give_back(ShardId(shard));
                self.out.remove(&shard);
            }
            Step::Send(shard, late) => {
                if self.out.contains(&shard) {
                    self.now += late;
                    self.send(shard, self.now - late);
                }
            }
            Step::Hold(shard) => {
                self.limiter.hold(ShardId(shard));
                self.out.insert(shard);
            }
            Step::HoldAll => {
                self.limiter.hold_all(self.now);
                self.sent.push((self.now, None));
            }
            Step::Update { max_concurrency, remaining, reset_after } => {
                let budget = IdentifyBudget::new(self.now, TOTAL, remaining, reset_after, FLOOR);
                self.limiter.update(self.now, max_concurrency, budget);
                self.max_concurrency = max_concurrency;
            }
            Step::Advance(time) => self.now += time,
        }
        for shard in 0..SHARDS {
            assert_eq!(self.limiter.holds_permit(ShardId(shard)), self.out.contains(&shard), "shard {shard}");
        }
    }

    fn waits(&mut self, shard: u32, priority: Priority) -> &mut Waiting {
        self.waiting.entry(shard).or_insert(Waiting { priority, at_hello: false, called: false })
    }

    fn send(&mut self, shard: u32, at: Instant) {
        let left = self.limiter.budget.left(at);
        self.limiter.sent(ShardId(shard), at);
        assert_eq!(self.limiter.budget().remaining(), left.saturating_sub(1), "GW-169: each Identify counts");
        self.out.remove(&shard);
        self.sent.push((at, Some(shard)));
    }

    /// Polls until nothing more is allowed, and checks each grant. Returns the shards that may connect and
    /// those that may identify.
    fn poll(&mut self) -> (Vec<u32>, Vec<u32>) {
        let (mut connect, mut identify) = (Vec::new(), Vec::new());
        while let Some(grant) = self.limiter.poll(self.now) {
            match grant {
                Grant::Connect(ShardId(shard)) => {
                    let waiting = self.waiting.get_mut(&shard).expect("only who waits may connect");
                    assert!(!waiting.called && !waiting.at_hello, "shard {shard} is on its way already");
                    waiting.called = true;
                    connect.push(shard);
                }
                Grant::Identify(ShardId(shard), _permit) => {
                    self.judge(shard);
                    identify.push(shard);
                }
            }
        }
        assert_eq!(self.limiter.waiting(), self.waiting.len());
        match self.limiter.wakes_at(self.now) {
            Some(at) => assert!(at > self.now, "it would be polled without end"),
            None => {
                let is_others_turn =
                    self.waiting.is_empty() || !self.out.is_empty() || self.on_their_way().next().is_some();
                assert!(is_others_turn, "{:?} wait for ever", self.waiting);
            }
        }
        (connect, identify)
    }

    /// Checks the grant of a permit to this shard.
    fn judge(&mut self, shard: u32) {
        let is_same_key = |other: u32| other % self.max_concurrency == shard % self.max_concurrency;
        let starting =
            self.waiting.values().filter(|waiting| waiting.priority == Priority::ColdStart).count();
        let granted = self.waiting.remove(&shard).expect("only who waits gets a permit");
        assert!(granted.at_hello, "shard {shard} has no Hello");
        assert!(!self.out.iter().any(|other| is_same_key(*other)), "GW-170: two permits of one key");
        for (at, other) in &self.sent {
            let shared = other.is_none_or(is_same_key);
            assert!(!shared || self.now - *at >= WINDOW, "GW-170: two Identify of one key within a window");
        }
        let left = self.limiter.budget().remaining().saturating_sub(FLOOR) as usize;
        assert!(left > self.out.len(), "GW-168: it takes from the reserve");
        let plenty = left > self.out.len() + starting;
        assert!(plenty || granted.priority != Priority::LostSession, "it takes what others need to start");
        let passed = self.waiting.iter().find(|(other, waiting)| {
            let is_served = plenty || waiting.priority != Priority::LostSession;
            let is_before = (waiting.priority, **other) < (granted.priority, shard);
            is_same_key(**other) && waiting.at_hello && is_served && is_before
        });
        assert!(passed.is_none(), "{shard} goes before {passed:?}");
        self.out.insert(shard);
    }

    /// The shards that were allowed to connect and have not received Hello.
    fn on_their_way(&self) -> impl Iterator<Item = u32> {
        let on_their_way = self.waiting.iter().filter(|(_, waiting)| waiting.called && !waiting.at_hello);
        on_their_way.map(|(shard, _)| *shard)
    }

    /// Lets every waiting shard identify, and returns how long that takes. Shards connect and identify at
    /// once, no new shard comes, and the limiter is polled only when a shard receives Hello and when the
    /// limiter asked for it. If `some_hang`, the shards that are connecting now never receive Hello, and the
    /// loop does not wait for them.
    fn run_out(&mut self, some_hang: bool) -> Duration {
        let start = self.now;
        for shard in std::mem::take(&mut self.out) {
            self.send(shard, start);
        }
        let on_their_way: Vec<u32> = self.on_their_way().collect();
        let mut hellos: Vec<(Instant, u32)> = Vec::new();
        if !some_hang {
            hellos.extend(on_their_way.iter().map(|shard| (start + HELLO, *shard)));
        }
        loop {
            let (connect, identify) = self.poll();
            hellos.extend(connect.iter().map(|shard| (self.now + HELLO, *shard)));
            if !identify.is_empty() {
                identify.iter().for_each(|shard| self.send(*shard, self.now));
                continue;
            }
            if self.waiting.keys().all(|shard| some_hang && on_their_way.contains(shard)) {
                return self.now - start;
            }
            let wakes_at = self.limiter.wakes_at(self.now);
            let next = hellos.iter().map(|(at, _)| *at).chain(wakes_at).min();
            let now = next.unwrap_or_else(|| panic!("{:?} wait for ever", self.waiting));
            self.now = now;
            for (_, shard) in hellos.extract_if(.., |(at, _)| *at <= now) {
                let priority = self.waiting[&shard].priority;
                self.take(Step::Claim(shard, priority));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// The limiter keeps one permit per key and window, leaves the reserve untouched, serves better places
    /// first, and asks to be polled only in the future. No shard waits for ever: once no new shard comes,
    /// every shard has had its turn after one window per waiting shard, plus one for the running window, one
    /// for shards that hang while connecting, the delays of connections, and the time of two handshakes. If the budget is not sufficient
    /// for all, the time until its reset is added.
    #[test]
    fn whatever_shards_do_the_limiter_keeps_its_limits_and_serves_everyone(
        max_concurrency in 1_u32..=5,
        steps in prop::collection::vec(step(), 0..80),
        some_hang in any::<bool>(),
    ) {
        let mut bench = Bench::new(max_concurrency);
        for step in steps {
            bench.take(step);
            bench.poll();
        }
        let (shards, out) = (bench.waiting.len() as u32, bench.out.len() as u32);
        let suffices = bench.limiter.budget.left(bench.now) > FLOOR + shards + out;
        let reset = bench.limiter.budget().resets_at(bench.now) - bench.now;
        let delay = bench.delayed_until.saturating_duration_since(bench.now);
        let bound = WINDOW * (shards + 2) + HELLO * 2 + delay + if suffices { Duration::ZERO } else { reset };
        let took = bench.run_out(some_hang);
        prop_assert!(took <= bound, "{took:?} instead of {bound:?}");
    }
}
