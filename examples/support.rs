//! What the examples share: a Discord to talk to.
//!
//! With `DISCORD_TOKEN` set it is the real one; without, a simulated one that this process starts.

use shardkeeper::config::DISCORD_API;
use shardkeeper_sim::{SimConfig, Simulator};

/// Where an example's bot lives.
pub struct Discord {
    token: String,
    api_url: String,
    simulator: Option<Simulator>,
}

impl Discord {
    /// The real Discord if there is a token for it, else a simulated one with two shards and some traffic.
    ///
    /// # Errors
    ///
    /// When the simulator cannot listen on the loopback address.
    pub async fn find() -> std::io::Result<Self> {
        Self::find_with(|_| {}).await
    }

    /// As [`find`](Self::find), with a simulated one of the example's liking.
    ///
    /// # Errors
    ///
    /// When the simulator cannot listen on the loopback address.
    pub async fn find_with(configure: impl FnOnce(&mut SimConfig)) -> std::io::Result<Self> {
        if let Ok(token) = std::env::var("DISCORD_TOKEN") {
            return Ok(Self { token, api_url: DISCORD_API.to_owned(), simulator: None });
        }
        let mut config = SimConfig::default();
        config.shards = 2;
        config.max_concurrency = 2;
        config.guilds = 8;
        config.events_per_second = 50.0;
        configure(&mut config);
        let token = config.token.clone();
        let simulator = Simulator::bind(config, ([127, 0, 0, 1], 0).into()).await?;
        simulator.start_traffic();
        Ok(Self { token, api_url: simulator.api_url(), simulator: Some(simulator) })
    }

    /// The bot's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The API's URL.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// The simulator, if it is one.
    pub fn simulator(&self) -> Option<&Simulator> {
        self.simulator.as_ref()
    }
}
