//! The actor that calls `GET /gateway/bot`: at the start, at intervals, and when shards cannot reach the
//! gateway.
//!
//! Input: its own timer, and the manager's message that an answer may be out of date. Output: each answer, to
//! the manager, which takes from it the address, the identify budget and the number of shards that Discord
//! recommends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use shardkeeper_proto::LONGEST_WAIT;
use tokio::time::Instant;

use super::config::Config;
use crate::gateway_info::{GatewayInfo, GatewayInfoError, gateway_info};
use crate::message::{ManagerMessage, SentinelMessage};
use crate::shard::OncePer;
use crate::task::AbortOnDrop;

/// The shortest time between two requests made because shards cannot reach the gateway. An outage lasts
/// minutes.
const ASK_AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// The sentinel of a bot.
#[expect(clippy::exhaustive_structs, reason = "names the actor; what it knows is in its state")]
pub struct ReshardSentinel;

/// What a [`ReshardSentinel`] is started with. Only the manager makes one.
pub struct SentinelArguments {
    pub(crate) config: Arc<Config>,
    pub(crate) manager: ActorRef<ManagerMessage>,
    pub(crate) random: fastrand::Rng,
    /// The manager waits for the first answer.
    pub(crate) awaited: bool,
    pub(crate) limits: Arc<AskLimits>,
}

/// When the gateway may be asked. The manager keeps these limits when it replaces a sentinel. A sentinel
/// updates them before it reports, because the manager may learn of its end first.
#[derive(Debug)]
pub(crate) struct AskLimits {
    /// The gateway must not be asked before this time; `None` for never again.
    not_before: Mutex<Option<Instant>>,
    /// Limits the requests that a shard's doubt causes.
    doubts: OncePer,
}

impl AskLimits {
    pub(crate) fn new() -> Self {
        Self { not_before: Mutex::new(Some(Instant::now())), doubts: OncePer::new(ASK_AT_MOST_EVERY) }
    }

    /// Whether a shard's doubt may cause a request now.
    fn admit_doubt(&self) -> bool {
        self.may_ask() && self.doubts.admits()
    }

    /// Whether a request may be sent now.
    pub(crate) fn may_ask(&self) -> bool {
        self.not_before().is_some_and(|at| at <= Instant::now())
    }

    fn not_before(&self) -> MutexGuard<'_, Option<Instant>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a [`ReshardSentinel`].
pub struct SentinelState {
    arguments: SentinelArguments,
    /// The current request, or the timer of the next one.
    next: Option<AbortOnDrop>,
    /// How many requests in a row have failed.
    failed: u32,
}

impl Actor for ReshardSentinel {
    type Msg = SentinelMessage;
    type State = SentinelState;
    type Arguments = SentinelArguments;

    async fn pre_start(
        &self,
        _: ActorRef<SentinelMessage>,
        arguments: SentinelArguments,
    ) -> Result<SentinelState, ActorProcessingErr> {
        Ok(SentinelState { arguments, next: None, failed: 0 })
    }

    async fn post_start(
        &self,
        myself: ActorRef<SentinelMessage>,
        state: &mut SentinelState,
    ) -> Result<(), ActorProcessingErr> {
        let not_before = *state.arguments.limits.not_before();
        if let Some(not_before) = not_before {
            let wait = if state.arguments.awaited { Duration::ZERO } else { state.interval() };
            state.ask_after(&myself, wait.max(not_before.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<SentinelMessage>,
        message: SentinelMessage,
        state: &mut SentinelState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SentinelMessage::Doubt => {
                if state.arguments.limits.admit_doubt() {
                    state.ask(&myself);
                }
            }
            SentinelMessage::Due | SentinelMessage::Ask => {
                // This request also answers a doubt that comes just afterwards.
                let _ = state.arguments.limits.doubts.admits();
                state.ask(&myself);
            }
            SentinelMessage::Answered(answer) => state.answered(&myself, answer),
        }
        Ok(())
    }
}

impl SentinelState {
    /// Sends a request. Its answer comes as a message, since a handler must not wait for the network.
    fn ask(&mut self, myself: &ActorRef<SentinelMessage>) {
        let (config, myself) = (Arc::clone(&self.arguments.config), myself.clone());
        self.do_next(async move {
            let answer = gateway_info(config.settings.dialer.as_ref(), &config.api_url, &config.token).await;
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
        self.next = Some(AbortOnDrop(tokio::spawn(task).abort_handle()));
    }

    fn answered(
        &mut self,
        myself: &ActorRef<SentinelMessage>,
        answer: Result<GatewayInfo, GatewayInfoError>,
    ) {
        let answer = match answer {
            Ok(info) => {
                (self.arguments.awaited, self.failed) = (false, 0);
                let wait = self.interval();
                self.ask_after(myself, wait);
                ManagerMessage::Gateway(info)
            }
            Err(error) => {
                self.failed += 1;
                let retry_after = self.retry_after(&error);
                *self.arguments.limits.not_before() = retry_after.map(|wait| Instant::now() + wait);
                retry_after.into_iter().for_each(|wait| self.ask_after(myself, wait));
                ManagerMessage::NoGateway { error, retry_after }
            }
        };
        let _ = self.arguments.manager.cast(answer);
    }

    /// How long to wait after this error. `None` for never: an invalid token is not used again (GW-006,
    /// GW-297).
    fn retry_after(&mut self, error: &GatewayInfoError) -> Option<Duration> {
        let asked_for = match (error, error.retry_after()) {
            (GatewayInfoError::Unauthorized, _) => return None,
            (_, Some(asked_for)) => asked_for,
            // Frequent requests would make it worse.
            (error, None) if !error.is_retryable() => self.interval(),
            _ if self.arguments.awaited => Duration::ZERO,
            _ => ASK_AT_MOST_EVERY,
        };
        let SentinelArguments { config, random, .. } = &mut self.arguments;
        Some(asked_for + config.settings.timings.reconnect.delay(self.failed, random.f64()))
    }

    /// How long to wait after an answer. Random, so that the processes of a bot do not all ask at once.
    fn interval(&mut self) -> Duration {
        let SentinelArguments { config, random, .. } = &mut self.arguments;
        let half = config.settings.gateway_check_every.clamp(ASK_AT_MOST_EVERY, LONGEST_WAIT) / 2;
        half + half.mul_f64(random.f64())
    }
}
