//! Two messages that race, in both orders: what a shard reports, and the news that its actor has ended.

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

use crate::bot::Shardkeeper;
use crate::dispatch::{Event, Lifecycle, Subscription, Topic};
use crate::error::ExitReason;
use crate::gateway_info::{GatewayInfo, SessionStartLimit};
use crate::manager::{ManagerState, ShardManager};
use crate::message::{ManagerMessage, RestartBy, ShardReport, ShutdownMode};
use crate::shard::life::Life;
use crate::status::Phase;
use crate::store::Stored;

const SHARD: ShardId = ShardId(1);

/// The manager's address, behind which nothing happens: the test makes everything happen.
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

/// A manager of two shards that are on their way to connect.
struct Bench {
    state: ManagerState,
    myself: ActorRef<ManagerMessage>,
    lifecycle: Subscription,
}

/// Which of the two comes first.
#[derive(Clone, Copy, Debug)]
enum First {
    Report,
    End,
}

impl Bench {
    async fn new() -> Self {
        let builder = Shardkeeper::builder("T", Intents::GUILDS).shards(2).dialer(Arc::new(Nowhere)).seed(7);
        let lifecycle = builder.subscribe(Topic::lifecycle());
        let (myself, _) = Actor::spawn(None, Nobody, ()).await.unwrap();
        let mut state = ShardManager.pre_start(myself.clone(), builder.build().unwrap()).await.unwrap();
        state.stored = Some(Stored::default());
        let limit =
            SessionStartLimit { total: 1000, remaining: 1000, reset_after_ms: 1000, max_concurrency: 2 };
        let url = Url::parse("wss://gateway.invalid").unwrap();
        state.gateway(&myself, GatewayInfo { url, shards: 2, session_start_limit: limit }).await.unwrap();
        Self { state, myself, lifecycle }
    }

    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.state.fleet.as_ref().unwrap().shards.entries[&SHARD].life)
    }

    /// The shard's actor reports and ends; the manager hears of it in this order.
    async fn end(&mut self, first: First, report: ShardReport) {
        let incarnation = self.life().incarnation();
        let child = self.state.fleet.as_ref().unwrap().shards.actor(SHARD).unwrap().get_cell();
        let Self { state, myself, .. } = self;
        if let First::Report = first {
            state.report(myself, SHARD, incarnation, report);
        }
        state.child_ended(myself, &child, "stopped".to_owned()).await.unwrap();
        if let First::End = first {
            state.report(myself, SHARD, incarnation, report);
        }
    }

    /// What Discord's refusal with this code is to a shard.
    fn refusal(&self, code: u16) -> FatalClose {
        let config = self.state.fleet.as_ref().unwrap().shards.shard_config(SHARD);
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

    /// What was announced of the bot so far.
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
        let outcome = bench.state.stopping.as_ref().map(|stopping| stopping.outcome);
        assert_eq!(outcome, Some(ExitReason::Refused(refusal)), "{first:?}");
        assert_eq!(bench.heard(), [Lifecycle::Refused(refusal)], "{first:?}");
        assert_eq!(bench.life().incarnation(), life.incarnation(), "{first:?}: it does not come back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_layout_is_told_once() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        let (life, refusal) = (bench.life(), bench.refusal(4010));
        // So the layout is not wrong as a whole, whether the report of that was served or not.
        life.set_ready();
        life.refuse(refusal);
        bench.end(first, ShardReport::Refused(refusal)).await;
        assert!(bench.state.stopping.is_none(), "{first:?}");
        let heard = bench.heard();
        assert!(matches!(heard[..], [Lifecycle::LayoutRefused { shard: SHARD, .. }]), "{first:?}: {heard:?}");
        assert_eq!(bench.life().incarnation(), life.incarnation(), "{first:?}");
        // An operator can try again all the same, and nothing late stands against it.
        let Bench { state, myself, .. } = &mut bench;
        state.restart_shard(myself, SHARD, RestartBy::Resume).await.unwrap().unwrap();
        state.report(myself, SHARD, life.incarnation(), ShardReport::Ended);
        assert!(!state.fleet.as_ref().unwrap().shards.has_ended(SHARD), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_ended_as_it_was_told_has_not_crashed() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        bench.life().set_over();
        bench.end(first, ShardReport::Ended).await;
        assert_eq!(bench.heard(), [], "{first:?}");
        assert!(bench.state.fleet.as_ref().unwrap().shards.has_ended(SHARD), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_ready_until_its_crash_counts_as_ready() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        bench.state.fleet.as_ref().unwrap().shards.entries[&ShardId(0)].life.set_ready();
        let life = bench.life();
        life.set_ready();
        bench.end(first, ShardReport::Ready).await;
        let heard = bench.heard();
        let [Lifecycle::AllReady { .. }, Lifecycle::Crashed { .. }] = heard[..] else {
            panic!("{first:?}: {heard:?}")
        };
        assert!(bench.life().incarnation() > life.incarnation(), "{first:?}: it comes back");
        assert!(bench.state.fleet.as_ref().unwrap().shards.all_were_ready(), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_presence_that_is_set_as_a_shard_crashes_is_that_of_its_next_life_and_of_later_shards() {
    for set_first in [true, false] {
        let mut bench = Bench::new().await;
        // After the second crash in a row it waits, and there is no actor.
        bench.end(First::End, ShardReport::Ready).await;
        let presence = PresenceUpdate::new(Presence::new(OnlineStatus::Idle)).unwrap();
        if set_first {
            bench.state.update_presence(presence.clone());
        }
        bench.end(First::End, ShardReport::Ready).await;
        assert!(bench.state.fleet.as_ref().unwrap().shards.actor(SHARD).is_none());
        if !set_first {
            bench.state.update_presence(presence.clone());
        }
        let next = &bench.state.fleet.as_ref().unwrap().shards.entries[&SHARD].presence;
        assert_eq!((next, &bench.state.presence), (&Some(presence.clone()), &Some(presence)), "{set_first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_answered_once_the_shard_is_gone() {
    for first in [First::Report, First::End] {
        let mut bench = Bench::new().await;
        let (reply, answer) = ractor::concurrency::oneshot();
        bench.state.remove_shards(&bench.myself, &[SHARD], ShutdownMode::Detach, reply.into());
        bench.life().set_over();
        bench.end(first, ShardReport::Ended).await;
        assert_eq!(answer.await.unwrap().unwrap(), [], "{first:?}");
        assert_eq!(bench.heard(), [], "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_dies_over_a_stop_leaves_no_session_whatever_its_driver_still_stores() {
    let mut bench = Bench::new().await;
    let life = bench.life();
    let (slot, count) = {
        let shards = &bench.state.fleet.as_ref().unwrap().shards;
        (Arc::clone(&shards.entries[&SHARD].slot), shards.count())
    };
    let session = Session::sample(SHARD, count);
    slot.store(life.incarnation(), Some(session.clone()));
    bench.state.begin_shutdown(&bench.myself, ShutdownMode::Stop, ExitReason::Stopped, None);
    bench.end(First::End, ShardReport::Ended).await;
    slot.store(life.incarnation(), Some(session));
    assert_eq!(slot.load(), None);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_leaves_is_not_restarted_by_its_timer() {
    let mut bench = Bench::new().await;
    let life = bench.life();
    // The third crash has to wait; the other shard makes the removal wait.
    let mut incarnation = life.incarnation();
    for _ in 0..3 {
        incarnation = bench.life().incarnation();
        if bench.state.fleet.as_ref().unwrap().shards.actor(SHARD).is_some() {
            bench.end(First::End, ShardReport::AskGateway).await;
        }
    }
    let (reply, _answer) = ractor::concurrency::oneshot();
    bench.state.remove_shards(&bench.myself, &[SHARD, ShardId(0)], ShutdownMode::Detach, reply.into());
    bench.state.restart(&bench.myself, SHARD, incarnation).await.unwrap();
    assert!(bench.state.fleet.as_ref().unwrap().shards.actor(SHARD).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_comes_back_waits_for_a_driver_of_it_that_still_runs() {
    let mut bench = Bench::new().await;
    let (reply, answer) = ractor::concurrency::oneshot();
    bench.state.remove_shards(&bench.myself, &[SHARD], ShutdownMode::Detach, reply.into());
    let shards = &bench.state.fleet.as_ref().unwrap().shards;
    shards.kill(SHARD);
    // As a driver does that goes on beyond the deadline of the removal.
    let driver = shards.entries[&SHARD].slot.lease().await;
    let incarnation = bench.life().incarnation();
    bench.end(First::End, ShardReport::AskGateway).await;
    while !bench.state.fleet.as_ref().unwrap().shards.entries[&SHARD].drivers.are_gone() {
        tokio::task::yield_now().await;
    }
    bench.state.report(&bench.myself, SHARD, incarnation, ShardReport::DriverGone);
    let sessions = answer.await.unwrap().unwrap();
    bench.state.add_shards(&bench.myself, &[SHARD], sessions).await.unwrap().unwrap();
    let phase = async |bench: &Bench| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench.state.fleet.as_ref().unwrap().shards.status_of(SHARD).unwrap().phase
    };
    assert_eq!(phase(&bench).await, Phase::Starting);
    drop(driver);
    assert_ne!(phase(&bench).await, Phase::Starting);
}
