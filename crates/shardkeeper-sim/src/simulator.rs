//! The handle of a simulator.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::SimConfig;
use crate::discord::Discord;
use crate::fault::{ConnectFault, Fault, InjectError, RestFault};
use crate::report::{Delivery, Report};
use crate::{http, traffic};

/// A simulated Discord. Clones are handles of the same one.
#[derive(Clone)]
pub struct Simulator {
    discord: Arc<Discord>,
}

impl Simulator {
    fn new(config: SimConfig, addr: Option<SocketAddr>) -> Self {
        let discord = Arc::new(Discord::new(config, addr));
        tokio::spawn(traffic::generate(Arc::clone(&discord)));
        Self { discord }
    }

    /// Listens on a TCP address, REST and Gateway on one port; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn bind(config: SimConfig, addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let simulator = Self::new(config, Some(listener.local_addr()?));
        tokio::spawn(http::listen(listener, Arc::clone(&simulator.discord)));
        Ok(simulator)
    }

    /// Listens on nothing: [`connect`](Self::connect) makes connections within the process. Under a paused clock
    /// hours pass in milliseconds.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn in_memory(config: SimConfig) -> Self {
        Self::new(config, None)
    }

    /// A new connection to the simulator's one port, as a stream in memory of 64 KiB each way.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(http::serve(theirs, Arc::clone(&self.discord)));
        ours
    }

    /// Where it listens, if it does.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.discord.addr
    }

    /// The URL of its REST API, with the version.
    pub fn api_url(&self) -> String {
        match self.discord.addr {
            Some(addr) => format!("http://{addr}/api/v10"),
            None => "http://sim.invalid/api/v10".to_owned(),
        }
    }

    /// Generates events from now on, as many as the configuration says.
    pub fn start_traffic(&self) {
        self.discord.traffic.send_replace(true);
    }

    /// Generates no more events, not one, from this call on. Those of logins still come.
    pub fn stop_traffic(&self) {
        // Under the lock that events are generated under.
        let _state = self.discord.state();
        self.discord.traffic.send_replace(false);
    }

    /// Generates as many events at once, in the newest session of a shard.
    pub fn emit(&self, shard_id: u32, count: usize) {
        self.discord.emit(shard_id, count);
    }

    /// Makes a fault on the live connection of a shard.
    ///
    /// # Errors
    ///
    /// When the shard has no connection that is logged in.
    pub fn inject(&self, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
        self.discord.inject(shard_id, fault)
    }

    /// Makes a fault on each of the next `times` gateway connections. Faults that are armed later come later.
    pub fn arm(&self, fault: ConnectFault, times: usize) {
        self.discord.state().armed.push_back((fault, times));
    }

    /// Makes a fault on each of the next `times` REST requests.
    pub fn arm_rest(&self, fault: RestFault, times: usize) {
        self.discord.state().armed_rest.push_back((fault, times));
    }

    /// What it has seen so far.
    pub fn report(&self) -> Report {
        self.discord.state().report(self.discord.config.identify_total)
    }

    /// Waits until the report is as the caller wants it. Asks after each change, and never by the clock.
    pub async fn wait_until(&self, mut predicate: impl FnMut(&Report) -> bool) {
        let mut changes = self.discord.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if predicate(&self.report()) {
                return;
            }
            // The sender lives as long as this handle.
            let _ = changes.changed().await;
        }
    }

    /// A subscriber of the client got a dispatch: its shard, event and the JSON of its data.
    pub fn observe(&self, _shard_id: u32, _event: &str, data: &[u8]) {
        let mut state = self.discord.state();
        state.ledger.observe(data);
        self.discord.changed(state);
    }

    /// What became of the dispatches.
    pub fn delivery(&self) -> Delivery {
        self.discord.state().ledger.delivery()
    }

    /// Ends every connection and listens no more.
    pub fn shutdown(&self) {
        self.discord.over.send_replace(true);
    }
}
