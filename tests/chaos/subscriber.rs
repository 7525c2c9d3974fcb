//! The subscribers, each with its own behaviour. Each finished event is entered into a ledger, and then
//! acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper::EventName;
use shardkeeper::{Delivery, Event, Overflow, Shardkeeper, Subscription, SubscriptionOptions, Topic};
use tokio::time::{sleep, timeout};

use crate::checkers::bounds;
use crate::plan::{Habit, Kind};
use crate::world::World;

impl Habit {
    pub(crate) fn topic(&self) -> Topic {
        if self.everything { Topic::all() } else { Topic::events([EventName::MessageCreate]) }
    }

    pub(crate) fn options(&self) -> SubscriptionOptions {
        SubscriptionOptions { capacity: self.capacity, overflow: self.overflow }
    }
}

/// A subscriber of one process.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) world: Arc<World>,
    pub(crate) habit: Habit,
    /// The number of the subscriber in the plan.
    pub(crate) number: usize,
    pub(crate) process: usize,
}

impl Listener {
    /// Reads a subscription until its end.
    pub(crate) async fn read(&self, ledger: usize, mut subscription: Subscription) {
        let calm = &self.world.calm;
        let mut held = VecDeque::new();
        let mut read = 0;
        loop {
            let is_calm = calm.has_come();
            while held.len() > if is_calm { 0 } else { self.habit.holds } {
                self.deal_with(ledger, held.pop_front());
            }
            let delivery = tokio::select! {
                biased;
                () = calm.wait(), if !is_calm => continue,
                delivery = subscription.next() => delivery,
            };
            let Some(delivery) = delivery else { break };
            bounds::backlog(&subscription, self.habit.capacity, &self.world.trace);
            held.push_back(delivery);
            read += 1;
            if read % self.habit.breaks_after == 0 && !self.habit.breaks_for.is_zero() {
                // The break lasts for its planned time, or until the faults have ended.
                let _ = timeout(self.habit.breaks_for, calm.wait()).await;
            }
        }
        while !held.is_empty() {
            self.deal_with(ledger, held.pop_front());
        }
    }

    fn deal_with(&self, ledger: usize, delivery: Option<Delivery>) {
        match delivery.as_deref() {
            Some(Event::Dispatch(dispatch)) => self.world.observe(ledger, self.process, dispatch),
            Some(Event::Lagged { missed }) if self.habit.overflow == Overflow::Wait => {
                self.world.missed(ledger, *missed);
            }
            _ => {}
        }
    }

    fn open_ledger(&self, times: u32) -> usize {
        let who = format!("subscriber {} of process {}, time {times}", self.number, self.process);
        self.world.open_ledger(who, self.habit)
    }

    /// Subscribes for a while, unsubscribes, and repeats that as long as the process lives.
    pub(crate) async fn come_and_go(&self, keeper: Shardkeeper, stays: Duration) {
        for times in 0.. {
            let subscription = keeper.subscribe_with(self.habit.topic(), self.habit.options());
            if timeout(stays, self.read(self.open_ledger(times), subscription)).await.is_ok() {
                return;
            }
            sleep(stays / 10).await;
        }
    }

    /// Subscribes an actor.
    pub(crate) async fn send_an_actor(self, keeper: &Shardkeeper) -> Option<ActorRef<Heard>> {
        let (topic, options) = (self.habit.topic(), self.habit.options());
        let ledger = self.open_ledger(0);
        let (actor, _) = Actor::spawn(None, Ear, (self, ledger)).await.ok()?;
        keeper.subscribe_actor(topic, options, actor.clone(), Heard);
        Some(actor)
    }
}

/// Stops the actor together with the process.
struct StopOnDrop(ActorRef<Heard>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(None);
    }
}

pub(crate) struct Ear;

pub(crate) struct Heard(Delivery);

pub(crate) struct Memory {
    listener: Listener,
    ledger: usize,
    held: VecDeque<Delivery>,
}

impl Actor for Ear {
    type Msg = Heard;
    type State = Memory;
    type Arguments = (Listener, usize);

    async fn pre_start(
        &self,
        _: ActorRef<Heard>,
        (listener, ledger): (Listener, usize),
    ) -> Result<Memory, ActorProcessingErr> {
        Ok(Memory { listener, ledger, held: VecDeque::new() })
    }

    async fn handle(
        &self,
        _: ActorRef<Heard>,
        heard: Heard,
        memory: &mut Memory,
    ) -> Result<(), ActorProcessingErr> {
        memory.held.push_back(heard.0);
        // The actor holds fewer than its credit, so that the next delivery comes.
        let holds = memory.listener.habit.holds.min(memory.listener.habit.capacity - 1);
        while memory.held.len() > if memory.listener.world.calm.has_come() { 0 } else { holds } {
            memory.listener.deal_with(memory.ledger, memory.held.pop_front());
        }
        Ok(())
    }
}

impl Listener {
    /// Subscribes to a process that has already started.
    pub(crate) async fn join(self, keeper: Shardkeeper) {
        match self.habit.kind {
            Kind::Steady => {}
            Kind::Fickle { stays } => self.come_and_go(keeper, stays).await,
            Kind::Actor => {
                if let Some(actor) = self.send_an_actor(&keeper).await {
                    let _until_then = StopOnDrop(actor);
                    let _ = keeper.exit_reason().await;
                }
            }
        }
    }
}
