//! The request for a Gateway connection.

use crate::fault::ConnectFault;
use crate::host::Host;
use crate::memory::Arrival;
use crate::wire::Query;

/// The properties of a connection that its WebSocket handshake decides.
pub(crate) struct Opening {
    pub(crate) query: Query,
    pub(crate) host: Host,
    pub(crate) fault: Option<ConnectFault>,
    pub(crate) arrival: Arrival,
}
