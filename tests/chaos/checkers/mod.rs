//! Invariants that must hold in every run. Each checker has one job, and does not know how the faults are
//! caused.

pub(crate) mod answers;
pub(crate) mod bounds;
pub(crate) mod delivery;
pub(crate) mod identify;
pub(crate) mod protocol;
pub(crate) mod recovery;
pub(crate) mod storing;
