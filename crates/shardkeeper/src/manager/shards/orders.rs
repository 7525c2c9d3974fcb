//! Two messages that race, tested in both orders: the report of a shard, and the supervision event that its
//! actor has ended.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use shardkeeper_proto::shard::{Change, Context, FatalClose};
use shardkeeper_proto::{
    Input, Intents, OnlineStatus, Output, Presence, PresenceUpdate, Session, Shard, ShardId,
};
use shardkeeper_transport::{BoxedIo, ConnectError, Dialer};
use url::Url;

use super::Shards;
use crate::bot::{Builder, Shardkeeper};
use crate::dispatch::{Event, Lifecycle, Subscription, Topic};
use crate::error::{ExitReason, StartError};
use crate::gateway_info::{GatewayInfo, SessionStartLimit};
use crate::layout::ShardKey;
use crate::manager::{ManagerState, ShardManager};
use crate::message::{ManagerMessage, RestartBy, ShardReport, ShutdownMode};
use crate::shard::life::Life;
use crate::status::Phase;

const SHARD: ShardKey = ShardKey { id: ShardId(1), generation: 1 };
const OTHER: ShardKey = ShardKey { id: ShardId(0), generation: 1 };

/// Has the manager's address and ignores every message: the test calls the manager's state itself.
struct Nobody;

impl Actor for Nobody {
    type Msg = ManagerMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<ManagerMessage>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ManagerMessage>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Never connects.
struct Nowhere;

impl Dialer for Nowhere {
    fn dial<'a>(&'a self, _: &'a Url) -> BoxFuture<'a, Result<BoxedIo, ConnectError>> {
        Box::pin(pending())
    }
}

/// The state of a manager with two shards that are connecting.
pub(super) struct Bench {
    state: ManagerState,
    pub(super) myself: ActorRef<ManagerMessage>,
    lifecycle: Subscription,
}

/// The gateway's answer that recommends this many shards.
fn answer(shards: u32) -> GatewayInfo {
    let limit = SessionStartLimit { total: 1000, remaining: 1000, reset_after_ms: 1000, max_concurrency: 2 };
    let url = Url::parse("wss://gateway.invalid").unwrap();
    GatewayInfo { url, shards, session_start_limit: limit }
}

/// A bot of two shards that never get beyond connecting.
pub(super) fn builder() -> Builder {
    let builder = Shardkeeper::builder("T", Intents::GUILDS).shards(2).dialer(Arc::new(Nowhere)).seed(7);
    builder.gateway(answer(2))
}

/// Which of the two messages comes first.
#[derive(Clone, Copy, Debug)]
enum First {
    Report,
    End,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let builder = builder();
        let lifecycle = builder.subscribe(Topic::lifecycle());
        let (myself, _) = Actor::spawn(None, Nobody, ()).await.unwrap();
        let mut state = ShardManager.pre_start(myself.clone(), builder.build().unwrap()).await.unwrap();
        state.gateway(&myself, answer(2)).await.unwrap();
        Self { state, myself, lifecycle }
    }

    pub(super) fn shards(&mut self) -> &mut Shards {
        &mut self.state.phase.fleet_mut().unwrap().shards
    }

    /// Makes the shard end as ordered.
    pub(super) async fn end_orderly(&mut self) {
        self.life().set_over();
        self.end(First::End, ShardReport::Ended).await;
    }

    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.state.phase.fleet().unwrap().shards.entries[&SHARD].life)
    }

    /// Makes the shard's actor report and end, which the manager learns in this order.
    async fn end(&mut self, first: First, report: ShardReport) {
        let incarnation = self.life().incarnation();
        let child = self.state.phase.fleet().unwrap().shards.actor(SHARD).unwrap().get_cell();
        let Self { state, myself, .. } = self;
        if let First::Report = first {
            state.report(myself, SHARD, incarnation, report);
        }
        state.child_ended(myself, &child, "stopped".to_owned()).await.unwrap();
        if let First::End = first {
            state.report(myself, SHARD, incarnation, report);
        }
    }

    /// What a shard makes of Discord's refusal with this code.
    fn refusal(&self, code: u16) -> FatalClose {
        let config = self.state.phase.fleet().unwrap().shards.shard_config(SHARD);
        let (mut shard, now) = (Shard::new(config, None), Instant::now());
        let closed = Input::Closed { code: Some(code), corrupt: false, detail: None };
        for input in [Input::Start, Input::ConnectGrant, Input::Connected, closed] {
            shard.handle_input(&mut Context::new(now, &mut || 0.0), input);
        }
        loop {
            match shard.poll_output() {
                Output::Changed(Change::Refused(refusal)) => return refusal,
                Output::Timeout(_) => panic!("{code} is fatal"),
                _ => {}
            }
        }
    }

    /// What was announced about the bot since the last call.
    fn heard(&mut self) -> Vec<Lifecycle> {
        let mut heard = Vec::new();
        while let Some(Some(event)) = self.lifecycle.next().now_or_never() {
            match &*event {
                Event::Lifecycle(Lifecycle::Shard { .. }) => {}
                Event::Lifecycle(lifecycle) => heard.push(lifecycle.clone()),
                _ => {}
            }
        }
        heard
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_bot_ends_it_once() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        let (life, refusal) = (bench.life(), bench.refusal(4004));
        life.refuse(refusal);
        bench.end(first, ShardReport::Refused(refusal)).await;
        let outcome = bench.state.phase.stopping().map(|stopping| stopping.reason);
        assert_eq!(outcome, Some(ExitReason::Refused(refusal)), "{first:?}");
        assert_eq!(bench.heard(), [Lifecycle::Refused(refusal)], "{first:?}");
        assert_eq!(bench.life().incarnation(), life.incarnation(), "{first:?}: it does not come back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_layout_is_announced_once() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        let (life, refusal) = (bench.life(), bench.refusal(4010));
        // A shard was ready, so the layout is not wrong as a whole, whether or not its report has arrived.
        life.set_ready();
        life.refuse(refusal);
        bench.end(first, ShardReport::Refused(refusal)).await;
        assert!(bench.state.phase.stopping().is_none(), "{first:?}");
        let heard = bench.heard();
        assert!(
            matches!(heard[..], [Lifecycle::LayoutRefused { shard: ShardId(1), .. }]),
            "{first:?}: {heard:?}"
        );
        assert_eq!(bench.life().incarnation(), life.incarnation(), "{first:?}");
        // An operator can try again, and a late report of the earlier incarnation does not end the new one.
        let Bench { state, myself, .. } = &mut bench;
        state.restart_shard(myself, SHARD.id, RestartBy::Resume).await.unwrap().unwrap();
        state.report(myself, SHARD, life.incarnation(), ShardReport::Ended);
        assert!(!state.phase.fleet().unwrap().shards.has_ended(SHARD), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_ended_as_ordered_has_not_crashed() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        bench.life().set_over();
        bench.end(first, ShardReport::Ended).await;
        assert_eq!(bench.heard(), [], "{first:?}");
        assert!(bench.state.phase.fleet().unwrap().shards.has_ended(SHARD), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_ready_until_its_crash_counts_as_ready() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        bench.state.phase.fleet().unwrap().shards.entries[&OTHER].life.set_ready();
        let life = bench.life();
        life.set_ready();
        bench.end(first, ShardReport::Ready).await;
        let heard = bench.heard();
        let [Lifecycle::AllReady { .. }, Lifecycle::Crashed { .. }] = heard[..] else {
            panic!("{first:?}: {heard:?}")
        };
        assert!(bench.life().incarnation() > life.incarnation(), "{first:?}: it comes back");
        assert!(bench.state.phase.fleet().unwrap().shards.all_were_ready(1), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_presence_set_during_a_crash_reaches_the_next_incarnation_and_later_shards() {
    for set_first in [true, false] {
        let mut bench = Bench::new().await;
        // After the second crash in a row it waits, and there is no actor.
        bench.end(First::End, ShardReport::Ready).await;
        let presence = PresenceUpdate::new(Presence::new(OnlineStatus::Idle)).unwrap();
        if set_first {
            bench.state.update_presence(presence.clone());
        }
        bench.end(First::End, ShardReport::Ready).await;
        assert!(bench.state.phase.fleet().unwrap().shards.actor(SHARD).is_none());
        if !set_first {
            bench.state.update_presence(presence.clone());
        }
        let next = &bench.state.phase.fleet().unwrap().shards.entries[&SHARD].presence;
        assert_eq!((next, &bench.state.presence), (&Some(presence.clone()), &Some(presence)), "{set_first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_answered_once_the_shard_is_gone() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        let (reply, answer) = ractor::concurrency::oneshot();
        bench.state.remove_shards(&bench.myself, &[SHARD.id], ShutdownMode::Detach, reply.into());
        bench.life().set_over();
        bench.end(first, ShardReport::Ended).await;
        assert_eq!(answer.await.unwrap().unwrap(), [], "{first:?}");
        assert_eq!(bench.heard(), [], "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_crashes_during_a_stop_leaves_no_session_even_if_its_driver_stores_one() {
    let mut bench = Bench::new().await;
    let life = bench.life();
    let (cell, count) = {
        let shards = &bench.state.phase.fleet().unwrap().shards;
        (Arc::clone(&shards.entries[&SHARD].cell), shards.count_of(SHARD))
    };
    let session = Session::sample(SHARD.id, count);
    cell.store(life.incarnation(), Some(session.clone()));
    bench.state.begin_shutdown(&bench.myself, ShutdownMode::Stop, ExitReason::Stopped, None);
    bench.end(First::End, ShardReport::Ended).await;
    cell.store(life.incarnation(), Some(session));
    assert_eq!(cell.load(), None);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_being_removed_is_not_restarted_by_its_timer() {
    let mut bench = Bench::new().await;
    let life = bench.life();
    // The third crash causes a wait. The other shard keeps the removal open.
    let mut incarnation = life.incarnation();
    for _ in 0..3 {
        incarnation = bench.life().incarnation();
        if bench.state.phase.fleet().unwrap().shards.actor(SHARD).is_some() {
            bench.end(First::End, ShardReport::AskGateway).await;
        }
    }
    let (reply, _answer) = ractor::concurrency::oneshot();
    bench.state.remove_shards(&bench.myself, &[SHARD.id, OTHER.id], ShutdownMode::Detach, reply.into());
    bench.state.restart(&bench.myself, SHARD, incarnation).await.unwrap();
    assert!(bench.state.phase.fleet().unwrap().shards.actor(SHARD).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_added_again_waits_for_its_old_driver() {
    let mut bench = Bench::new().await;
    let (reply, answer) = ractor::concurrency::oneshot();
    bench.state.remove_shards(&bench.myself, &[SHARD.id], ShutdownMode::Detach, reply.into());
    let shards = &bench.state.phase.fleet().unwrap().shards;
    shards.actor(SHARD).unwrap().kill();
    // As held by a driver that runs on after the deadline of the removal.
    let driver = shards.entries[&SHARD].cell.lease().await;
    let incarnation = bench.life().incarnation();
    bench.end(First::End, ShardReport::AskGateway).await;
    while !bench.state.phase.fleet().unwrap().shards.entries[&SHARD].drivers.are_gone() {
        tokio::task::yield_now().await;
    }
    bench.state.report(&bench.myself, SHARD, incarnation, ShardReport::DriverGone);
    let sessions = answer.await.unwrap().unwrap();
    bench.state.add_shards(&bench.myself, &[SHARD.id], sessions).await.unwrap().unwrap();
    let phase = async |bench: &Bench| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench.state.phase.fleet().unwrap().shards.status_of(SHARD).unwrap().phase
    };
    assert_eq!(phase(&bench).await, Phase::Starting);
    drop(driver);
    assert_ne!(phase(&bench).await, Phase::Starting);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_has_failed_ignores_a_later_answer_of_the_gateway() {
    let builder = Shardkeeper::builder("T", Intents::GUILDS).dialer(Arc::new(Nowhere));
    let (myself, _) = Actor::spawn(None, Nobody, ()).await.unwrap();
    let mut state = ShardManager.pre_start(myself.clone(), builder.build().unwrap()).await.unwrap();
    let (reply, started) = ractor::concurrency::oneshot();
    state.phase.starting_mut().unwrap().callers.push(reply.into());
    // The manager ends once its session store is closed. The sentinel may ask again until then.
    state.gateway(&myself, answer(0)).await.unwrap();
    state.gateway(&myself, answer(2)).await.unwrap();
    assert!(state.phase.fleet().is_none());
    assert!(matches!(started.await.unwrap(), Err(StartError::Layout(_))));
}
