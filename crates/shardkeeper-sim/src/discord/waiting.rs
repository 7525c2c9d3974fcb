//! Faults that wait for future connections and requests.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::{ConnectFault, RestFault};
use crate::host::Host;

/// Faults of the next connections and requests, and faults of Gateway URLs.
#[derive(Debug, Default)]
pub(crate) struct WaitingFaults {
    /// Each fault with the number of connections that it still affects.
    connect: VecDeque<(ConnectFault, usize)>,
    /// Each fault with the number of requests that it still affects.
    rest: VecDeque<(RestFault, usize)>,
    /// Each fault of a URL with its end, by tokio's clock.
    hosts: Vec<(Host, ConnectFault, Instant)>,
    /// How many connections at URLs for Resume failed because of a fault and may be followed by a Resume at
    /// the bootstrap URL (GW-139).
    driven_off: u64,
}

impl WaitingFaults {
    pub(crate) fn arm_connect(&mut self, fault: ConnectFault, times: usize) {
        self.connect.push_back((fault, times));
    }

    pub(crate) fn arm_rest(&mut self, fault: RestFault, times: usize) {
        self.rest.push_back((fault, times));
    }

    pub(crate) fn arm_host(&mut self, host: Host, fault: ConnectFault, lasts: Duration) {
        let now = Instant::now();
        self.hosts.retain(|(_, _, until)| *until > now);
        self.hosts.push((host, fault, now + lasts));
    }

    pub(crate) fn disarm(&mut self) {
        self.connect.clear();
        self.rest.clear();
        self.hosts.clear();
    }

    /// The fault of a new connection at this URL: the next one for any connection, otherwise the one of the
    /// URL.
    pub(crate) fn take_connect(&mut self, host: Host) -> Option<ConnectFault> {
        let fault = take(&mut self.connect).or_else(|| self.of_host(host))?;
        let is_refusal = matches!(fault, ConnectFault::RefuseResume | ConnectFault::InvalidIdentify);
        self.driven_off += u64::from(host.is_for_resume() && !is_refusal);
        Some(fault)
    }

    /// The fault of a new REST request.
    pub(crate) fn take_rest(&mut self) -> Option<RestFault> {
        take(&mut self.rest)
    }

    /// Whether a Resume at the bootstrap URL is excused by a failed connection at a URL for Resume. Each
    /// failure excuses one.
    pub(crate) fn excuse_bootstrap(&mut self) -> bool {
        let excused = self.driven_off > 0;
        self.driven_off = self.driven_off.saturating_sub(1);
        excused
    }

    fn of_host(&self, host: Host) -> Option<ConnectFault> {
        let now = Instant::now();
        let mut lasting = self.hosts.iter().rev().filter(|(_, _, until)| *until > now);
        lasting.find(|(faulty, _, _)| faulty.includes(host)).map(|(_, fault, _)| *fault)
    }
}

fn take<T: Copy>(armed: &mut VecDeque<(T, usize)>) -> Option<T> {
    armed.retain(|(_, times)| *times > 0);
    let (fault, times) = armed.front_mut()?;
    *times -= 1;
    Some(*fault)
}
