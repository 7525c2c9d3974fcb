//! Shared by the examples: a Discord to connect to.
//!
//! With `DISCORD_TOKEN` set, this is the real Discord; otherwise a simulated one in this process.

use shardkeeper::config::DISCORD_API;
use shardkeeper_sim::{SimConfig, Simulator};

/// The Discord that an example's bot connects to.
pub struct Discord {
    token: String,
    api_url: String,
    simulator: Option<Simulator>,
}

impl Discord {
    /// The real Discord if `DISCORD_TOKEN` is set, otherwise a simulated one with two shards and some
    /// traffic.
    ///
    /// # Errors
    ///
    /// When the simulator cannot listen on the loopback address.
    pub async fn find() -> std::io::Result<Self> {
        Self::find_with(|_| {}).await
    }

    /// The same as [`find`](Self::find), with a custom configuration of the simulator.
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

    /// The bot's token, from `DISCORD_TOKEN` or of the simulator.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The URL of the API, of Discord or of the simulator.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// The simulator; `None` with the real Discord.
    pub fn simulator(&self) -> Option<&Simulator> {
        self.simulator.as_ref()
    }
}
