//! The demo's faults: what is injected, when, and how the shards recover.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use shardkeeper::actor::ShardMessage;
use shardkeeper::status::{Change, ManagerStatus, Phase, Reason, Role, ShardKey, ShardStatus};
use shardkeeper::{Lifecycle, Shardkeeper};
use shardkeeper_sim::{Fault, SessionFilter, Simulator};
use tokio::time::Instant;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Drill {
    /// The simulator stops acknowledging heartbeats.
    Zombie,
    /// The simulator requests a new connection.
    Reconnect,
    /// The shard's driver panics.
    Panic,
    /// The simulator declares the session invalid.
    InvalidSession,
}

impl Drill {
    /// All faults, in the order of injection: a zombie takes longest to be noticed.
    pub(super) const ALL: [Self; 4] = [Self::Zombie, Self::Reconnect, Self::Panic, Self::InvalidSession];

    /// Whether the shard must keep its session through this fault.
    pub(super) const fn keeps_session(self) -> bool {
        !matches!(self, Self::InvalidSession)
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Zombie => "zombie",
            Self::Reconnect => "op 7",
            Self::Panic => "panic",
            Self::InvalidSession => "invalid session",
        })
    }
}

/// A fault that was injected, and its outcome.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Injected {
    pub(super) drill: Drill,
    pub(super) shard: ShardKey,
    #[serde(skip)]
    at: Instant,
    /// Whether the shard noticed this fault: it must recover from this one, not from another disturbance.
    #[serde(skip)]
    noticed: bool,
    pub(super) recovery: Option<Recovery>,
}

/// How a shard recovered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Recovery {
    pub(super) resumed: bool,
    pub(super) replayed: u64,
    pub(super) after_ms: u64,
}

impl Injected {
    /// Whether the shard recovered as it should.
    pub(super) fn is_good(&self) -> bool {
        self.recovery.is_some_and(|recovery| recovery.resumed == self.drill.keeps_session())
    }

    /// Whether this lifecycle change is how the shard notices the fault.
    fn shows_in(&self, lifecycle: &Lifecycle) -> bool {
        match (self.drill, lifecycle) {
            (Drill::Panic, Lifecycle::Crashed { .. }) => true,
            (drill, Lifecycle::Shard { change: Change::Disconnected { reason, .. }, .. }) => match drill {
                Drill::Zombie => *reason == Reason::Zombied,
                Drill::Reconnect => *reason == Reason::ReconnectRequested,
                Drill::InvalidSession => matches!(reason, Reason::InvalidSession { .. }),
                Drill::Panic => false,
            },
            _ => false,
        }
    }
}

/// The schedule of faults, and those from which shards are still recovering.
pub(super) struct Plan {
    random: fastrand::Rng,
    /// When each fault is due. Set when every shard was ready for the first time.
    due: Option<Vec<(Instant, Drill)>>,
    injected: Vec<Injected>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), due: None, injected: Vec::new() }
    }

    pub(super) fn drills(&self) -> &[Injected] {
        &self.injected
    }

    /// Whether every fault was injected and every shard recovered.
    pub(super) fn is_healed(&self) -> bool {
        self.due.as_ref().is_some_and(Vec::is_empty)
            && self.injected.iter().all(|fault| fault.recovery.is_some())
    }

    /// Injects the faults that are due. Called while every shard in service is ready, so that no two faults hit
    /// one shard at once.
    pub(super) async fn inject_due(
        &mut self,
        now: Instant,
        end: Instant,
        status: &ManagerStatus,
        keeper: &Shardkeeper,
        simulator: &Simulator,
    ) -> Vec<String> {
        let due = self.due.get_or_insert_with(|| {
            // Spreads the faults over the first half of the remaining time; the second half is for recovery.
            let step = end.saturating_duration_since(now).max(Duration::from_secs(2)) / 8;
            Drill::ALL.into_iter().zip(1..).map(|(drill, place)| (now + step * place, drill)).collect()
        });
        let mut lines = Vec::new();
        while let Some(&(at, drill)) = due.first() {
            // With few shards, one fault at a time; with many, each fault on a shard of its own.
            let is_free = |shard: ShardKey| {
                !self.injected.iter().any(|fault| fault.shard == shard && fault.recovery.is_none())
            };
            let mut free = victims(status, drill);
            free.retain(|shard| is_free(key(shard)));
            let Some(shard) = self.random.choice(free) else { break };
            if at > now || !inject(drill, shard, keeper, simulator).await {
                break;
            }
            due.remove(0);
            let shard = key(shard);
            self.injected.push(Injected { drill, shard, at: now, noticed: false, recovery: None });
            lines.push(format!("── fault: {drill} on shard {shard}"));
        }
        lines
    }

    /// Records how the shards react to the faults.
    pub(super) fn watch(&mut self, now: Instant, lifecycle: &Lifecycle) {
        let Some(shard) = lifecycle.key() else { return };
        let Some(fault) =
            self.injected.iter_mut().find(|fault| fault.shard == shard && fault.recovery.is_none())
        else {
            return;
        };
        if !fault.noticed {
            fault.noticed = fault.shows_in(lifecycle);
            return;
        }
        let (resumed, replayed) = match lifecycle {
            Lifecycle::Shard { change: Change::Ready, .. } => (false, 0),
            Lifecycle::Shard { change: Change::Resumed { replayed }, .. } => (true, *replayed),
            _ => return,
        };
        let after_ms = u64::try_from((now - fault.at).as_millis()).unwrap_or(u64::MAX);
        fault.recovery = Some(Recovery { resumed, replayed, after_ms });
    }
}

fn key(shard: &ShardStatus) -> ShardKey {
    ShardKey { id: shard.shard, generation: shard.generation }
}

/// The shards that a fault can hit: those that stay, since a shard of an older layout may close before it has
/// recovered.
fn victims(status: &ManagerStatus, drill: Drill) -> Vec<&ShardStatus> {
    let newest = status.shards.iter().map(|shard| shard.generation).max();
    let stays = status.reshard.as_ref().map(|reshard| reshard.next_generation).or(newest);
    let moves = |shard: &ShardStatus| {
        status.reshard.as_ref().is_some_and(|reshard| reshard.new.contains(&shard.shard))
    };
    let can_be_hit = |shard: &&ShardStatus| match drill {
        Drill::Zombie | Drill::Reconnect => true,
        // The handle gives out only the actors of shards in service.
        Drill::Panic => shard.role == Role::Active,
        // A shard that has just taken over loses the events until it is ready again, as any shard does that
        // loses its session. The simulator would count them, because the old shard receives them.
        Drill::InvalidSession => !moves(shard),
    };
    let shards = status.shards.iter().filter(|shard| Some(shard.generation) == stays);
    shards.filter(|shard| shard.phase == Phase::Ready).filter(can_be_hit).collect()
}

async fn inject(drill: Drill, shard: &ShardStatus, keeper: &Shardkeeper, simulator: &Simulator) -> bool {
    let fault = match drill {
        Drill::Zombie => Fault::StopAcking,
        Drill::Reconnect => Fault::Reconnect,
        Drill::InvalidSession => Fault::InvalidSession { resumable: false },
        Drill::Panic => {
            let actor = keeper.shard(shard.shard).await;
            return actor.is_ok_and(|actor| actor.cast(ShardMessage::CrashDrill).is_ok());
        }
    };
    // Two layouts can have a shard with this id, and even with the same count.
    let sessions = simulator.sessions().into_iter();
    let own = sessions.filter(|it| (it.shard_id, it.shard_count) == (shard.shard.0, shard.count.get()));
    let newest = own.map(|session| session.session).max();
    newest.is_some_and(|session| simulator.inject_in(SessionFilter::of_session(session), fault).is_ok())
}

/// Suppresses the output of the panic that the demo injects; any other panic is still printed.
pub(super) fn hush_drills() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&"crash drill") {
            print(panic);
        }
    }));
}
