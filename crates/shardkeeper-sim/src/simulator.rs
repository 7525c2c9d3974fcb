//! The handle of a simulator.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::action::Action;
use crate::config::SimConfig;
use crate::discord::Discord;
use crate::fault::{ConnectFault, Fault, InjectError, RestFault};
use crate::memory::MemoryStream;
use crate::report::{Delivery, Report, SessionRecord};
use crate::script::Script;
use crate::tls::Acceptor;
use crate::{http, memory, traffic};

/// A simulated Discord. Clones are handles of the same one.
#[derive(Clone)]
pub struct Simulator {
    discord: Arc<Discord>,
}

impl Simulator {
    fn new(config: SimConfig, addr: Option<SocketAddr>, tls: bool) -> Self {
        let discord = Arc::new(Discord::new(config, addr, tls));
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
        let simulator = Self::new(config, Some(listener.local_addr()?), false);
        tokio::spawn(http::listen(listener, Acceptor::Plain, Arc::clone(&simulator.discord)));
        Ok(simulator)
    }

    /// As [`bind`](Self::bind), with TLS and a certificate that is generated for it. Returns that certificate too, in
    /// PEM: clients have to trust it.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    #[cfg(feature = "tls")]
    pub async fn bind_tls(config: SimConfig, addr: SocketAddr) -> io::Result<(Self, String)> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (acceptor, certificate) = crate::tls::generate(addr.ip())?;
        let simulator = Self::new(config, Some(addr), true);
        tokio::spawn(http::listen(listener, acceptor, Arc::clone(&simulator.discord)));
        Ok((simulator, certificate))
    }

    /// Listens on nothing: [`connect`](Self::connect) makes connections within the process. Under a paused clock
    /// hours pass in milliseconds.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn in_memory(config: SimConfig) -> Self {
        Self::new(config, None, false)
    }

    /// A new connection to the simulator's one port, as a stream in memory of 64 KiB each way. Beyond
    /// [`SimConfig::max_connections`] the stream has ended already. What is written is judged by the time of its writing,
    /// however late the simulator's tasks read it; over TCP by the time of reading.
    pub fn connect(&self) -> MemoryStream {
        let (ours, theirs) = memory::stream();
        if let Some(place) = self.discord.admit() {
            let arrival = theirs.arrival();
            tokio::spawn(http::serve(theirs, arrival, Arc::clone(&self.discord), place));
        }
        ours
    }

    /// Where it listens, if it does.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.discord.addr
    }

    /// The URL of its REST API, with the version.
    pub fn api_url(&self) -> String {
        match self.discord.public_addr() {
            Some(addr) if self.discord.tls => format!("https://{addr}/api/v10"),
            Some(addr) => format!("http://{addr}/api/v10"),
            None => "http://sim.invalid/api/v10".to_owned(),
        }
    }

    /// Does something to it: the one door that scripts and HTTP use too.
    ///
    /// # Errors
    ///
    /// When a fault is for a shard that has no connection now, an event for one that has no session, or an outage for a
    /// guild that does not exist.
    pub fn act(&self, action: &Action) -> Result<(), InjectError> {
        self.discord.act(action)
    }

    /// Carries out a script, from now on; returns at its end. A step that cannot be carried out is logged and left
    /// out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the script. A step is never half done, except that [`Action::Emit`] stops between two
    /// events.
    pub async fn play(&self, script: Script) {
        Arc::clone(&self.discord).play(script).await;
    }

    /// Generates events from now on, as many as the configuration says.
    pub fn start_traffic(&self) {
        self.does(&Action::Traffic { on: true });
    }

    /// Generates no more events, not one, from this call on. Those of logins still come.
    pub fn stop_traffic(&self) {
        self.does(&Action::Traffic { on: false });
    }

    /// Generates as many events at once, in the newest session of a shard, if it has one. Other threads get their turn in
    /// between; the caller's runtime thread does not, so for very many use [`Action::Emit`] over HTTP or in a script.
    pub fn emit(&self, shard_id: u32, count: usize) {
        let _ = self.act(&Action::Emit { shard: shard_id, count, event: None, data: None });
    }

    /// Sends exactly this event in the newest session of a shard, whatever its intents. Nothing changes in the guilds.
    ///
    /// # Errors
    ///
    /// When the shard has no session, the name is not in capitals, digits and underscores, or the data is no object.
    pub fn dispatch(&self, shard_id: u32, event: &str, data: Value) -> Result<(), InjectError> {
        let (event, data) = (Some(event.to_owned()), Some(data));
        self.act(&Action::Emit { shard: shard_id, count: 1, event, data })
    }

    /// Makes a fault on the live connection of a shard.
    ///
    /// # Errors
    ///
    /// When the shard has no connection that is logged in.
    pub fn inject(&self, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
        self.act(&Action::Fault { shard: Some(shard_id), fault })
    }

    /// Makes a fault on each of the next `times` gateway connections. Faults that are armed later come later.
    pub fn arm(&self, fault: ConnectFault, times: usize) {
        self.does(&Action::Connect { fault, times });
    }

    /// Makes a fault on each of the next `times` REST requests.
    pub fn arm_rest(&self, fault: RestFault, times: usize) {
        self.does(&Action::Rest { fault, times });
    }

    /// For actions that cannot fail.
    fn does(&self, action: &Action) {
        let done = self.act(action);
        debug_assert!(done.is_ok(), "{action:?} concerns no shard and no guild");
    }

    /// What it has seen so far.
    pub fn report(&self) -> Report {
        self.discord.state().report()
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

    /// Every session that there ever was, by shard and number: for those who count dispatches themselves.
    pub fn sessions(&self) -> Vec<SessionRecord> {
        self.discord.state().session_records(self.discord.config.timings.session_lifetime)
    }

    /// Ends every connection and listens no more.
    pub fn shutdown(&self) {
        self.discord.over.send_replace(true);
    }
}
