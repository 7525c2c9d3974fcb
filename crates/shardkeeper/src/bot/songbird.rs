//! Voice with songbird, whose voice states are sent over the bot's own shards.
//!
//! songbird needs a way to send voice states, and two events to be passed on to it; it does the rest by
//! itself:
//!
//! ```no_run
//! # async fn voice(bot: shardkeeper::Shardkeeper, guild_id: std::num::NonZeroU64, user_id: std::num::NonZeroU64) {
//! let shard = songbird::shards::Shard::Generic(std::sync::Arc::new(bot));
//! let mut call = songbird::Call::new(guild_id, shard, user_id);
//! # let (endpoint, token, session_id, channel_id) = Default::default();
//! # let channel_id: Option<std::num::NonZeroU64> = channel_id;
//! // From VOICE_STATE_UPDATE of the bot itself, and from VOICE_SERVER_UPDATE, in either order (GW-202):
//! call.update_state(session_id, channel_id);
//! call.update_server(endpoint, token);
//! # }
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use songbird::error::{JoinError, JoinResult};
use songbird::id::{ChannelId, GuildId};
use songbird::shards::{GenericSharder, VoiceUpdate};

use shardkeeper_proto::VoiceStateUpdate;

use super::Shardkeeper;

#[async_trait]
impl VoiceUpdate for Shardkeeper {
    /// Sends a voice state on the shard that owns the guild.
    ///
    /// # Errors
    ///
    /// [`JoinError::NoSender`] when the command is not accepted; the log has the reason.
    async fn update_voice_state(
        &self,
        guild_id: GuildId,
        channel_id: Option<ChannelId>,
        self_deaf: bool,
        self_mute: bool,
    ) -> JoinResult<()> {
        let (guild_id, channel_id) = (guild_id.0.get(), channel_id.map(|channel_id| channel_id.0.get()));
        let update = VoiceStateUpdate { guild_id, channel_id, self_mute, self_deaf };
        match self.command(update).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(error = %error, "songbird's voice state update was not accepted");
                Err(JoinError::NoSender)
            }
        }
    }
}

#[async_trait]
impl GenericSharder for Shardkeeper {
    /// Returns this handle for every shard id, because it finds the shard that owns a guild by itself.
    fn get_shard(&self, _: u64) -> Option<Arc<dyn VoiceUpdate + Send + Sync>> {
        Some(Arc::new(self.clone()))
    }
}
