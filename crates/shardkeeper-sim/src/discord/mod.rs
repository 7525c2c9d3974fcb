//! The simulated Discord that all connections share.

mod access;
mod clock;
mod history;
mod identifies;
mod jitter;
mod ledger;
mod member_requests;
mod refusals;
mod session;
mod sessions;
mod shared;
mod state;
mod urls;
mod waiting;

pub(crate) use self::jitter::SAMPLE as JITTER_SAMPLE;
pub(crate) use self::session::{Ended, Owner, Session, ends_session};
pub(crate) use self::shared::{Discord, Slot};
pub(crate) use self::state::{State, send_initial};
