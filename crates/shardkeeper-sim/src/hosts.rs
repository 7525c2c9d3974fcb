//! The URLs of the Gateway: one that everybody begins at, and those that sessions are resumed at. They are told apart by
//! their path, so that one port can serve them all.

use std::time::Duration;

use tokio::time::Instant;

use crate::discord::{Discord, State};
use crate::fault::ConnectFault;
use crate::host::{Host, RESUME_PATH};

/// Faults that stay with their hosts, and what they excuse.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    faults: Vec<(Host, ConnectFault, Instant)>,
    /// Connections at a URL for Resume that came to nothing, and were not made up for by one at the bootstrap URL (GW-139).
    driven_off: u64,
}

impl Hosts {
    pub(crate) fn arm(&mut self, host: Host, fault: ConnectFault, lasts: Duration) {
        let now = Instant::now();
        self.faults.retain(|(_, _, until)| *until > now);
        self.faults.push((host, fault, now + lasts));
    }

    pub(crate) fn disarm(&mut self) {
        self.faults.clear();
    }

    fn fault(&self, host: Host) -> Option<ConnectFault> {
        let now = Instant::now();
        let mut lasting = self.faults.iter().rev().filter(|(_, _, until)| *until > now);
        lasting.find(|(faulty, _, _)| faulty.includes(host)).map(|(_, fault, _)| *fault)
    }

    /// A connection to this host comes to nothing by this fault.
    fn note(&mut self, host: Host, fault: ConnectFault) {
        let is_refusal = matches!(fault, ConnectFault::RefuseResume | ConnectFault::InvalidIdentify);
        self.driven_off += u64::from(host.is_for_resume() && !is_refusal);
    }

    /// Whether a Resume at the bootstrap URL has its reason.
    pub(crate) fn excuses_bootstrap(&mut self) -> bool {
        let excused = self.driven_off > 0;
        self.driven_off = self.driven_off.saturating_sub(1);
        excused
    }
}

impl State {
    /// The fault of a connection to this host: the next one that is armed for any, else the one that stays with it.
    pub(crate) fn fault_at(&mut self, host: Host) -> Option<ConnectFault> {
        let fault = crate::discord::take(&mut self.armed).or_else(|| self.hosts.fault(host))?;
        self.hosts.note(host, fault);
        Some(fault)
    }
}

impl Discord {
    /// The number of the URL at which a session is resumed.
    pub(crate) fn resume_host(&self, ordinal: u64) -> Host {
        Host::Resume(ordinal % self.config.resume_hosts.max(1))
    }

    /// What is odd about the place of a Resume, unless there is a reason for it.
    pub(crate) fn strays(&self, session: &str, host: Host) -> Option<&'static str> {
        let mut state = self.state();
        let ordinal = state.sessions.get(session).map(|session| session.ordinal);
        match (host, ordinal) {
            (Host::Resume(_), Some(ordinal)) if self.resume_host(ordinal) != host => {
                Some("a Resume at the URL of another session")
            }
            (Host::Gateway, _) if !state.hosts.excuses_bootstrap() => Some("a Resume at the bootstrap URL"),
            _ => None,
        }
    }

    /// Another one than for Identify (GW-132), and without a query (GW-012).
    pub(crate) fn resume_url(&self, ordinal: u64) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        let (label, path) = match self.resume_host(ordinal) {
            Host::Resume(number) if self.config.resume_hosts > 1 => {
                (format!("resume-{number}"), format!("/{number}"))
            }
            _ => ("resume".to_owned(), String::new()),
        };
        match self.public_addr() {
            Some(addr) => format!("{scheme}://{addr}{RESUME_PATH}{path}"),
            None => format!("{scheme}://{label}.sim.invalid{RESUME_PATH}{path}"),
        }
    }
}
