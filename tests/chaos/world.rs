//! The shared parts of a run: Discord, the network, the processes of the bot, and the state of the checkers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardkeeper::gate::LocalGate;
use shardkeeper::{Dispatch, Intents, Shardkeeper};
use shardkeeper_sim::{SimConfig, Simulator};
use tokio::time::{Instant, sleep};

use crate::calm::Calm;
use crate::checkers::answers::Answers;
use crate::checkers::delivery::{Excuses, Ledger};
use crate::checkers::storing::{Log, Logins};
use crate::clock::WallClock;
use crate::network::Network;
use crate::pace::Pace;
use crate::plan::{Habit, Plan};
use crate::process::Process;
use crate::store::Store;
use crate::trace::Trace;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    pub(crate) simulator: Simulator,
    pub(crate) network: Network,
    pub(crate) gate: LocalGate,
    /// The wall clock of each place.
    pub(crate) clocks: [WallClock; 2],
    pub(crate) stores: [Store; 2],
    pub(crate) log: Log,
    pub(crate) trace: Trace,
    pub(crate) answers: Answers,
    /// After this signal every subscriber reads without breaks.
    pub(crate) calm: Calm,
    state: Mutex<State>,
}

/// The mutable state, behind one lock that is only held briefly.
#[derive(Default)]
pub(crate) struct State {
    /// The process of each place; `None` while it is being replaced.
    pub(crate) processes: [Option<Process>; 2],
    /// The number of processes started so far.
    pub(crate) started: usize,
    /// The place in which each shard runs.
    pub(crate) owners: BTreeMap<u32, usize>,
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) excuses: Excuses,
    pub(crate) logins: Logins,
    /// When a process handed a shard over, by process and shard.
    pub(crate) given_away: BTreeMap<(usize, u32), Instant>,
    /// When the session keeper of a process restarted after its crash.
    keepers_back: BTreeMap<usize, Instant>,
}

impl World {
    pub(crate) fn new(plan: Plan, pace: Pace) -> Arc<Self> {
        let mut config = SimConfig::default();
        config.token = "sim-token".to_owned();
        config.seed = plan.seed;
        config.shards = plan.shards;
        config.max_concurrency = plan.max_concurrency;
        config.identify_remaining = plan.identify_remaining;
        config.guilds = plan.guilds;
        config.large_guild_members = plan.large_guild_members;
        config.events_per_second = plan.events_per_second;
        config.mix = plan.mix;
        config.replay_limit = plan.replay_limit;
        // The client must read every way of splitting and writing that a server uses.
        config.split_frames = plan.split_frames;
        config.resume_hosts = plan.resume_hosts;
        config.split_suffix = plan.split_frames;
        config.mixed_atoms = true;
        config.timings = pace.sim_timings();
        let simulator = Simulator::in_memory(config);
        let network = Network::new(simulator.clone(), plan.latency, plan.seed);
        let trace = Trace::new();
        let ledgers = plan
            .subscribers
            .iter()
            .enumerate()
            .map(|(number, habit)| Ledger::new(format!("subscriber {number}"), *habit));
        let here = plan.shards - plan.elsewhere;
        let owners = (0..plan.shards).map(|shard| (shard, usize::from(shard >= here))).collect();
        let clocks = [WallClock::new(), WallClock::new()];
        let log = Log::default();
        let store = |place: usize| {
            let (clock, seed) = (clocks[place].clone(), plan.seed.wrapping_add(place as u64));
            Store::new((plan.store.latency, pace.clone()), clock, trace.clone(), log.clone(), seed)
        };
        let stores = [store(0), store(1)];
        let state = State { ledgers: ledgers.collect(), owners, ..State::default() };
        Arc::new(Self {
            simulator,
            network,
            gate: LocalGate::default(),
            clocks,
            stores,
            log,
            answers: Answers::new(trace.clone(), pace.clone()),
            pace,
            trace,
            calm: Calm::default(),
            state: Mutex::new(state),
            plan,
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn intents(&self) -> Intents {
        Intents::all()
    }

    /// The places that have processes.
    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        0..if self.plan.elsewhere > 0 { 2 } else { 1 }
    }

    /// The process in this place; `None` while it is being replaced.
    pub(crate) fn keeper(&self, place: usize) -> Option<Shardkeeper> {
        self.state().processes[place].as_ref().map(|process| process.keeper.clone())
    }

    /// The process that runs this shard.
    pub(crate) fn keeper_of(&self, shard: u32) -> Option<Shardkeeper> {
        let place = *self.state().owners.get(&shard)?;
        self.keeper(place)
    }

    /// The shards in this place.
    pub(crate) fn shards_of(&self, place: usize) -> Vec<u32> {
        self.state().owners.iter().filter(|(_, owner)| **owner == place).map(|(shard, _)| *shard).collect()
    }

    /// Records that shards left a process before all their events were acknowledged.
    pub(crate) fn torn(self: &Arc<Self>, shards: &[u32]) {
        let newest = self.newest_sessions();
        let mut state = self.state();
        shards.iter().for_each(|shard| state.excuses.torn(*shard, newest.get(shard).copied()));
        drop(state);
        let (world, shards) = (Arc::clone(self), shards.to_vec());
        tokio::spawn(async move {
            sleep(world.plan.latency + world.pace.settling() + Duration::from_millis(1)).await;
            let newest = world.newest_sessions();
            let mut state = world.state();
            for shard in &shards {
                let newest = newest.get(shard).copied();
                state.excuses.forgets(*shard, newest);
                if world.pace.is_real() {
                    // The threads of a killed process do not all end at the same moment.
                    state.excuses.torn(*shard, newest);
                }
            }
        });
    }

    /// Records that a shard crashed.
    pub(crate) fn crashed(&self, shard: u32) {
        let newest = self.newest_sessions();
        self.state().excuses.crashed(shard, newest.get(&shard).copied());
    }

    /// For each shard, the number of the last session that Discord began.
    fn newest_sessions(&self) -> BTreeMap<u32, u64> {
        let sessions = self.simulator.sessions().into_iter();
        sessions.map(|session| (session.shard_id, session.session)).collect()
    }

    /// For each shard, the id of the last session that Discord began.
    pub(crate) fn newest_session_ids(&self) -> BTreeMap<u32, String> {
        let sessions = self.simulator.sessions().into_iter();
        sessions.map(|session| (session.shard_id, session.id)).collect()
    }

    /// The shards that a process had handed over by this time.
    pub(crate) fn given_away_before(&self, process: usize, moment: Instant) -> Vec<u32> {
        let state = self.state();
        let of_process = state.given_away.range((process, 0)..=(process, u32::MAX));
        of_process.filter(|(_, at)| **at <= moment).map(|((_, shard), _)| *shard).collect()
    }

    /// Records that the session keeper of a process crashed, and restarts after this wait.
    pub(crate) fn keeper_died(&self, process: usize, back_after: Duration) {
        self.state().keepers_back.insert(process, Instant::now() + back_after);
    }

    /// Whether the session keeper of a process has lived without a crash since then.
    pub(crate) fn keeper_lives_since(&self, process: usize, moment: Instant) -> bool {
        self.state().keepers_back.get(&process).is_none_or(|back| *back <= moment)
    }

    /// Opens a ledger for a subscription that begins later.
    pub(crate) fn open_ledger(&self, who: String, habit: Habit) -> usize {
        let mut state = self.state();
        state.ledgers.push(Ledger::new(who, habit));
        state.ledgers.len() - 1
    }

    /// Records that a subscriber was told to have missed events.
    pub(crate) fn missed(&self, ledger: usize, missed: u64) {
        self.state().ledgers[ledger].missed += missed;
    }

    /// Records that a subscriber has finished a dispatch.
    pub(crate) fn observe(&self, ledger: usize, process: usize, dispatch: &Dispatch) {
        let mut state = self.state();
        let State { ledgers, excuses, .. } = &mut *state;
        let facts = ledgers[ledger].observe(process, dispatch, excuses);
        drop(state);
        if let Some([process, shard, session, number]) = facts {
            self.trace.observed([(ledger as u64) << 32 | process, shard, session, number]);
        }
    }
}
