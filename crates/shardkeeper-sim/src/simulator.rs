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
use crate::report::{Delivery, Report, SessionRecord, WorldDelivery};
use crate::script::Script;
use crate::settings::{SessionFilter, SessionSettings};
use crate::tls::Acceptor;
use crate::{acting, http, memory, traffic};

/// A handle of a simulated Discord. Clones are handles of the same one.
///
/// The simulator runs until [`Simulator::shutdown`], even if all handles are dropped.
#[derive(Clone)]
pub struct Simulator {
    discord: Arc<Discord>,
}

impl Simulator {
    fn new(config: SimConfig, addr: Option<SocketAddr>, tls: bool) -> Self {
        let discord = Arc::new(Discord::new(config, addr, tls));
        tokio::spawn(traffic::generate(Arc::clone(&discord)));
        tokio::spawn(Arc::clone(&discord).expire_sessions());
        Self { discord }
    }

    /// Listens on a TCP address, REST and Gateway on one port; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be listened on.
    pub async fn bind(config: SimConfig, addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let simulator = Self::new(config, Some(listener.local_addr()?), false);
        tokio::spawn(http::listen(listener, Acceptor::Plain, Arc::clone(&simulator.discord)));
        Ok(simulator)
    }

    /// Does the same as [`bind`](Self::bind), with TLS and a certificate for `localhost` and the address that
    /// is generated for it. Returns the certificate too, in PEM; clients have to trust it.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be listened on.
    #[cfg(feature = "tls")]
    pub async fn bind_tls(config: SimConfig, addr: SocketAddr) -> io::Result<(Self, String)> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (acceptor, certificate) = crate::tls::generate(addr.ip())?;
        let simulator = Self::new(config, Some(addr), true);
        tokio::spawn(http::listen(listener, acceptor, Arc::clone(&simulator.discord)));
        Ok((simulator, certificate))
    }

    /// Starts a simulator that does not listen: [`connect`](Self::connect) makes connections within the
    /// process. With tokio's paused clock, hours pass in milliseconds.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn in_memory(config: SimConfig) -> Self {
        Self::new(config, None, false)
    }

    /// Makes a connection to the simulator's port, as a stream in memory of 64 KiB in each direction. Beyond
    /// [`SimConfig::max_connections`] the stream has ended already.
    ///
    /// The simulator judges what the client writes by the time of writing, even if its own tasks read it
    /// later. Over TCP it goes by the time of reading.
    pub fn connect(&self) -> MemoryStream {
        let (ours, theirs) = memory::stream();
        if let Some(slot) = self.discord.admit() {
            let arrival = theirs.arrival();
            tokio::spawn(http::serve(theirs, arrival, Arc::clone(&self.discord), slot));
        }
        ours
    }

    /// The address that the simulator listens on; `None` in memory.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.discord.addr
    }

    /// The URL of the REST API, with the version.
    pub fn api_url(&self) -> String {
        self.discord.urls.api()
    }

    /// Carries out an action at once. Scripts and `POST /sim/act` do the same.
    ///
    /// # Errors
    ///
    /// Fails when the shard of a fault has no connection, the shard of an event has no session, the event or
    /// its data is not valid, or a guild does not exist.
    pub fn act(&self, action: &Action) -> Result<(), InjectError> {
        acting::act(&self.discord, action)
    }

    /// Carries out a script from now on, and returns at its end. A step that fails is logged and skipped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the script. A step is carried out completely or not at all, except that
    /// [`Action::Emit`] may stop between two events.
    pub async fn play(&self, script: Script) {
        acting::play(Arc::clone(&self.discord), script).await;
    }

    /// Starts the generated traffic, at the rates in the configuration.
    pub fn start_traffic(&self) {
        self.does(&Action::Traffic { on: true });
    }

    /// Stops the generated traffic. When this returns, no more events are generated, except those of logins.
    pub fn stop_traffic(&self) {
        self.does(&Action::Traffic { on: false });
    }

    /// Makes this many random events happen in random guilds, or in one guild by its number from 0. Each session
    /// that owns the guild receives them. Blocks the caller's thread meanwhile, like [`emit`](Self::emit).
    ///
    /// # Errors
    ///
    /// Fails when the guild does not exist.
    pub fn happen(&self, guild: Option<u32>, count: usize) -> Result<(), InjectError> {
        self.act(&Action::Happen { guild, count, event: None, data: None })
    }

    /// Makes an event with exactly this data happen in a guild, by its number from 0, or outside of guilds. Each
    /// session that owns the guild and has the intents receives it. Nothing changes in the guild.
    ///
    /// # Errors
    ///
    /// Fails when the guild does not exist, the name has other characters than capitals, digits and
    /// underscores, or the data is not an object.
    pub fn happen_exactly(&self, guild: Option<u32>, event: &str, data: Value) -> Result<(), InjectError> {
        let (event, data) = (Some(event.to_owned()), Some(data));
        self.act(&Action::Happen { guild, count: 1, event, data })
    }

    /// Changes how sessions are treated: those that the filter includes and that exist or start later.
    pub fn treat(&self, of: SessionFilter, settings: SessionSettings) {
        self.does(&Action::Sessions { of, set: settings });
    }

    /// Makes a fault on the live connection of each session that the filter includes.
    ///
    /// # Errors
    ///
    /// Fails when no such session has a connection.
    pub fn inject_in(&self, of: SessionFilter, fault: Fault) -> Result<(), InjectError> {
        self.act(&Action::SessionFault { of, fault })
    }

    /// Sends exactly this event in each session that the filter includes, regardless of its intents.
    ///
    /// # Errors
    ///
    /// Fails when there is no such session, the name has other characters than capitals, digits and
    /// underscores, or the data is not an object.
    pub fn dispatch_in(&self, of: SessionFilter, event: &str, data: Value) -> Result<(), InjectError> {
        self.act(&Action::Dispatch { of, event: event.to_owned(), data })
    }

    /// Sends this many random events at once in the newest session of a shard, if it has one. Blocks the
    /// caller's thread meanwhile; to send very many, use [`Action::Emit`] over HTTP or in a script.
    pub fn emit(&self, shard_id: u32, count: usize) {
        let _ = self.act(&Action::Emit { shard: shard_id, count, event: None, data: None });
    }

    /// Sends exactly this event in the session of a shard that was identified or resumed last, regardless of its
    /// intents and its number of shards. Nothing changes
    /// in the guilds.
    ///
    /// # Errors
    ///
    /// Fails when the shard has no session, the name has other characters than capitals, digits and
    /// underscores, or the data is not an object.
    pub fn dispatch(&self, shard_id: u32, event: &str, data: Value) -> Result<(), InjectError> {
        let (event, data) = (Some(event.to_owned()), Some(data));
        self.act(&Action::Emit { shard: shard_id, count: 1, event, data })
    }

    /// Makes a fault on the live connection of a shard: that of the session that was identified or resumed last,
    /// whatever its number of shards. [`inject_in`](Self::inject_in) chooses the session.
    ///
    /// # Errors
    ///
    /// Fails when the shard has no connection that is logged in.
    pub fn inject(&self, shard_id: u32, fault: Fault) -> Result<(), InjectError> {
        self.act(&Action::Fault { shard: Some(shard_id), fault })
    }

    /// Makes a fault on each of the next `times` Gateway connections, after those of earlier calls.
    pub fn arm(&self, fault: ConnectFault, times: usize) {
        self.does(&Action::Connect { fault, times });
    }

    /// Makes a fault on each of the next `times` REST requests, after those of earlier calls.
    pub fn arm_rest(&self, fault: RestFault, times: usize) {
        self.does(&Action::Rest { fault, times });
    }

    /// Carries out an action that cannot fail.
    fn does(&self, action: &Action) {
        let done = self.act(action);
        debug_assert!(done.is_ok(), "{action:?} concerns no shard and no guild");
    }

    /// The report up to now.
    pub fn report(&self) -> Report {
        self.discord.state().report()
    }

    /// Waits until the report satisfies the predicate, which is called now and after each change.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn wait_until(&self, mut predicate: impl FnMut(&Report) -> bool) {
        let mut changes = self.discord.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if predicate(&self.report()) {
                return;
            }
            // Cannot fail, since the sender lives as long as this handle.
            let _ = changes.changed().await;
        }
    }

    /// Reports a dispatch that a subscriber of the client received: its shard, its event and the JSON of its
    /// data.
    pub fn observe(&self, _shard_id: u32, _event: &str, data: &[u8]) {
        let mut state = self.discord.state();
        state.ledger.observe(data);
        self.discord.changed(state);
    }

    /// How many dispatches reached the client, according to [`observe`](Self::observe).
    pub fn delivery(&self) -> Delivery {
        self.discord.state().ledger.delivery()
    }

    /// Reports an event that a subscriber of the client received: its name, the JSON of its data, and whether
    /// the client said that the event may be a repetition. Needs [`Traces::World`](crate::Traces::World);
    /// dispatches that belong to one session count in [`delivery`](Self::delivery).
    pub fn observe_event(&self, event: &str, data: &[u8], marked: bool) {
        let mut state = self.discord.state();
        state.history.observe(event, data, marked);
        state.ledger.observe(data);
        self.discord.changed(state);
    }

    /// Which events reached the client's subscribers over all sessions, according to
    /// [`observe_event`](Self::observe_event).
    pub fn world_delivery(&self) -> WorldDelivery {
        self.discord.state().world_delivery()
    }

    /// Every session since the start, sorted by shard and number. For tests that count dispatches themselves.
    pub fn sessions(&self) -> Vec<SessionRecord> {
        self.discord.state().session_records()
    }

    /// Ends every connection and stops listening.
    pub fn shutdown(&self) {
        self.discord.over.send_replace(true);
    }
}
