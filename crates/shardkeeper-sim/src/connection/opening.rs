//! The request for a Gateway connection.

use crate::fault::ConnectFault;
use crate::host::Host;
use crate::memory::Arrival;
use crate::wire::Query;

/// What the WebSocket handshake has decided about its connection.
pub(crate) struct Opening {
    pub(crate) query: Query,
    pub(crate) host: Host,
    pub(crate) fault: Option<ConnectFault>,
    pub(crate) arrival: Arrival,
}
