//! The actor that asks the gateway how things stand: at the start, now and then, and when shards cannot find it.
//!
//! Input: its clock, and the manager's word that something may be out of date. Output: each answer, to the manager, which
//! learns from it the address, the identify budget and the number of shards that Discord advises.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::ManagerConfig;
use crate::gateway_info::{GatewayInfo, GatewayInfoError, gateway_info};
use crate::message::{ManagerMessage, SentinelMessage};

/// So often the gateway is asked for shards that cannot reach it, at most. An outage lasts minutes.
const ASK_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// No timer waits longer than a year.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// The sentinel of a bot.
pub struct ReshardSentinel;

/// What a [`ReshardSentinel`] is started with. Only the manager makes one.
pub struct SentinelArguments {
    pub(crate) config: Arc<ManagerConfig>,
    pub(crate) manager: ActorRef<ManagerMessage>,
    pub(crate) random: fastrand::Rng,
    /// The manager waits for its first answer.
    pub(crate) awaited: bool,
}

/// The state of a [`ReshardSentinel`].
pub struct SentinelState {
    config: Arc<ManagerConfig>,
    manager: ActorRef<ManagerMessage>,
    random: fastrand::Rng,
    /// The request that is under way, or the timer of the next one.
    next: JoinSet<()>,
    /// Whatever shards say, it is not asked before.
    not_before: Instant,
    /// The manager waits for its first answer.
    awaited: bool,
    /// Requests that failed in a row.
    failed: u32,
}

impl Actor for ReshardSentinel {
    type Msg = SentinelMessage;
    type State = SentinelState;
    type Arguments = SentinelArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SentinelMessage>,
        arguments: SentinelArguments,
    ) -> Result<SentinelState, ActorProcessingErr> {
        let SentinelArguments { config, manager, random, awaited } = arguments;
        let mut state = SentinelState {
            config,
            manager,
            random,
            next: JoinSet::new(),
            not_before: Instant::now(),
            awaited,
            failed: 0,
        };
        if awaited {
            state.ask(&myself);
        } else {
            let wait = state.interval();
            state.ask_after(&myself, wait);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SentinelMessage>,
        message: SentinelMessage,
        state: &mut SentinelState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SentinelMessage::Doubt => {
                if Instant::now() >= state.not_before {
                    state.ask(&myself);
                }
            }
            SentinelMessage::Due => state.ask(&myself),
            SentinelMessage::Answered(answer) => state.answered(&myself, answer),
        }
        Ok(())
    }
}

impl SentinelState {
    /// Handlers do not wait for the network: the answer comes as a message.
    fn ask(&mut self, myself: &ActorRef<SentinelMessage>) {
        self.not_before = Instant::now() + ASK_AT_MOST_EVERY;
        let (config, myself) = (Arc::clone(&self.config), myself.clone());
        self.do_next(async move {
            let answer = gateway_info(config.dialer.as_ref(), &config.api_url, &config.token).await;
            let _ = myself.cast(SentinelMessage::Answered(answer));
        });
    }

    fn ask_after(&mut self, myself: &ActorRef<SentinelMessage>, wait: Duration) {
        let myself = myself.clone();
        self.do_next(async move {
            tokio::time::sleep(wait).await;
            let _ = myself.cast(SentinelMessage::Due);
        });
    }

    fn do_next(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.next = JoinSet::new();
        self.next.spawn(task);
    }

    fn answered(
        &mut self,
        myself: &ActorRef<SentinelMessage>,
        answer: Result<GatewayInfo, GatewayInfoError>,
    ) {
        let (wait, answer) = match answer {
            Ok(info) => {
                (self.awaited, self.failed) = (false, 0);
                (Some(self.interval()), ManagerMessage::Gateway(info))
            }
            Err(error) => {
                self.failed += 1;
                let retry_after = self.retry_after(&error);
                (retry_after, ManagerMessage::NoGateway { error, retry_after })
            }
        };
        match wait {
            Some(wait) => self.ask_after(myself, wait),
            // A dead token is not used again (GW-006, GW-297), whatever shards say.
            None => self.not_before += LONGEST_WAIT,
        }
        let _ = self.manager.cast(answer);
    }

    fn retry_after(&mut self, error: &GatewayInfoError) -> Option<Duration> {
        let asked_for = match (error, error.retry_after()) {
            (GatewayInfoError::Unauthorized, _) => return None,
            (_, Some(asked_for)) => asked_for,
            // To ask on and on would make it worse.
            (error, None) if !error.is_retryable() => self.interval(),
            _ => Duration::ZERO,
        };
        self.not_before = self.not_before.max(Instant::now() + asked_for);
        let wait = self.config.timings.reconnect.delay(self.failed, self.random.f64());
        let at_least = if self.awaited { asked_for } else { asked_for.max(ASK_AT_MOST_EVERY) };
        Some(at_least + wait)
    }

    /// Not the same for every process of a bot: they would all ask at once.
    fn interval(&mut self) -> Duration {
        let half = self.config.gateway_check_every.clamp(ASK_AT_MOST_EVERY, LONGEST_WAIT) / 2;
        half + half.mul_f64(self.random.f64())
    }
}
