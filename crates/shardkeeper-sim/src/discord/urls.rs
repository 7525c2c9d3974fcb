//! The URLs that the simulator gives to clients.

use std::net::SocketAddr;

use crate::host::{Host, RESUME_PATH};

/// The address in the URLs, and how many URLs for Resume there are.
pub(crate) struct Urls {
    /// `None` for a simulator in memory, whose URLs have host names that do not exist.
    pub(super) addr: Option<SocketAddr>,
    pub(super) tls: bool,
    pub(super) resume_hosts: u64,
}

impl Urls {
    /// The URL of the REST API, with the version.
    pub(crate) fn api(&self) -> String {
        match self.addr {
            Some(addr) if self.tls => format!("https://{addr}/api/v10"),
            Some(addr) => format!("http://{addr}/api/v10"),
            None => "http://sim.invalid/api/v10".to_owned(),
        }
    }

    /// The bootstrap URL of the Gateway.
    pub(crate) fn gateway(&self) -> String {
        let scheme = self.scheme();
        match self.addr {
            Some(addr) => format!("{scheme}://{addr}"),
            None => format!("{scheme}://gateway.sim.invalid"),
        }
    }

    /// The URL for Resume of the session with this number, as a [`Host`].
    pub(crate) fn resume_host(&self, session: u64) -> Host {
        Host::Resume(session % self.resume_hosts.max(1))
    }

    /// The URL for Resume of the session with this number. It differs from the bootstrap URL (GW-132) and has
    /// no query (GW-012).
    pub(crate) fn resume(&self, session: u64) -> String {
        let scheme = self.scheme();
        let (label, path) = match self.resume_host(session) {
            Host::Resume(number) if self.resume_hosts > 1 => {
                (format!("resume-{number}"), format!("/{number}"))
            }
            _ => ("resume".to_owned(), String::new()),
        };
        match self.addr {
            Some(addr) => format!("{scheme}://{addr}{RESUME_PATH}{path}"),
            None => format!("{scheme}://{label}.sim.invalid{RESUME_PATH}{path}"),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "wss" } else { "ws" }
    }
}
