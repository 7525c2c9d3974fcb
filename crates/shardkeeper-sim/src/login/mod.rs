//! Identify and Resume: how each is judged, and what it starts.

mod attempt;
mod identify;
mod resume;
#[cfg(test)]
mod tests;

pub(crate) use self::attempt::{Attempt, Login};
pub(crate) use self::identify::{Identify, identify};
pub(crate) use self::resume::{Resume, resume};
