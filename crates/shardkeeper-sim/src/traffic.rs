//! Generated traffic: random events in the guilds, and random faults.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::acting::inject_into;
use crate::discord::{Discord, Session};
use crate::emission::happen_anywhere;
use crate::fault::Fault;
use crate::settings::SessionFilter;

/// Generates events in random guilds and faults on random sessions while traffic is on, until the simulator is shut down.
pub(crate) async fn generate(discord: Arc<Discord>) {
    /// Events come in small batches: a timer per event would cost more than the event.
    const TICK: Duration = Duration::from_millis(10);
    let mut traffic = discord.traffic.subscribe();
    let mut over = discord.over.subscribe();
    let rate = discord.config.events_per_second.max(0.0);
    let fault_rate = discord.config.faults_per_minute.max(0.0) / 60.0;
    let fastest = rate.max(fault_rate);
    // If there is less than one per tick, a tick lasts until the next one.
    let tick =
        if fastest > 0.0 { TICK.max(Duration::from_secs_f64((1.0 / fastest).min(86_400.0))) } else { TICK };
    let (mut owed, mut faults_owed) = (0.0, 0.0);
    loop {
        // Wait until traffic is on; end when the simulator is shut down.
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => return,
            on = traffic.wait_for(|on| *on) => if on.is_err() || fastest <= 0.0 {
                return;
            },
        }
        let before = Instant::now();
        tokio::select! {
            biased;
            () = tokio::time::sleep(tick) => {}
            _ = over.changed() => return,
        }
        // By the time that has passed, so that late timers do not lower the rate.
        owed += rate * before.elapsed().as_secs_f64();
        faults_owed += fault_rate * before.elapsed().as_secs_f64();
        let mut state = discord.state();
        if !*traffic.borrow() {
            (owed, faults_owed) = (0.0, 0.0);
            continue;
        }
        let has_sessions = !state.sessions.shards().is_empty();
        while owed >= 1.0 {
            owed -= 1.0;
            if has_sessions {
                happen_anywhere(&mut state);
            }
        }
        discord.changed(state);
        while faults_owed >= 1.0 {
            faults_owed -= 1.0;
            random_fault(&discord);
        }
    }
}

/// Makes one of the faults that a client has to survive, on a random session.
fn random_fault(discord: &Arc<Discord>) {
    let mut state = discord.state();
    let mut sessions = state.sessions.matching(&SessionFilter::all());
    sessions.retain(|id| state.sessions.get(id).is_some_and(Session::is_live));
    let Some(session) = state.random.choice(sessions) else { return };
    let random = &mut state.random;
    let fault = match random.u32(0..16) {
        0 | 1 => Fault::Reconnect,
        2 | 3 => Fault::Cut,
        4 => Fault::StopAcking,
        5 => Fault::HalfOpen,
        6 => Fault::InvalidSession { resumable: true },
        7 => Fault::InvalidSession { resumable: false },
        8 => Fault::Close { code: [1000, 1001, 4000, 4001, 4002, 4005, 4008][random.usize(..7)] },
        9 => Fault::Close { code: [4007, 4009][random.usize(..2)] },
        10 => Fault::Corrupt,
        11 => Fault::Truncate,
        12 => Fault::RequestHeartbeat,
        13 => Fault::Duplicate { count: random.u32(1..5) },
        14 => Fault::Gap { count: random.u32(1..50) },
        _ => Fault::Odd,
    };
    drop(state);
    tracing::info!(?fault, "makes a random fault");
    inject_into(discord, session, fault);
}
