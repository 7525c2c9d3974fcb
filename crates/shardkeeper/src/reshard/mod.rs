//! Resharding without its I/O: which groups of shards to replace, when that is worth its Identifies, and in
//! which order one group after another is replaced.
//!
//! Input: layouts, limits, time and the facts that the manager reads from its shards. Output: a plan, or the
//! reason why there is none, and the actions of one reshard. The manager carries the actions out.

pub(crate) mod phases;
mod plan;
mod policy;
mod request;

#[cfg(test)]
mod model;

pub use self::phases::{GroupPhase, HaltReason};
pub use self::plan::{Adjustment, ReshardForecast, ReshardGroup, ReshardPlan, ReshardTarget, SplitGroup};
pub(crate) use self::plan::{Allowance, HalfWay, Situation, forecast, plan};
pub use self::policy::{ReshardPolicy, VoicePolicy};
pub use self::request::ReshardRequest;
