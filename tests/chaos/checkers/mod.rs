//! What must hold whatever happens. Each checker has one job, and knows nothing of how the faults come about.

pub(crate) mod answers;
pub(crate) mod bounds;
pub(crate) mod delivery;
pub(crate) mod identify;
pub(crate) mod protocol;
pub(crate) mod recovery;
pub(crate) mod storing;
