//! What makes a resume possible.

use std::fmt;

use serde::{Deserialize, Serialize};

use url::Url;

use crate::{Intents, ShardConfig, ShardCount, ShardId};

/// A session: Discord's side of a shard, which outlives its connections. Its id, resume URL and sequence number belong
/// together (GW-124).
///
/// It is a secret like the token (whoever has both can resume it), so its `Debug` shows the sequence alone.
/// Serialize it only into storage that is as private as the token's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Discord's name for it.
    pub id: String,
    /// Where Discord wants it resumed; without a query. `None` when READY had none that could be used: then it is resumed
    /// at the bootstrap URL.
    pub resume_url: Option<String>,
    /// The last sequence number received in the session, which counts across its connections (GW-020).
    pub sequence: u64,
    /// The shard it was identified as. A session is resumed into the same slot only.
    pub shard: ShardId,
    /// The layout it was identified in.
    pub count: ShardCount,
    /// What it asked to receive: that stays as it is for the life of the session (GW-181).
    pub intents: Intents,
    /// The query of the connection that it was made on; it is resumed with the same (GW-012).
    pub query: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("shard", &self.shard)
            .field("count", &self.count)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Why a session cannot be resumed by a shard.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionMismatch {
    /// It belongs to another slot of a layout.
    #[error("it is one of shard {shard} of {count}, not of shard {wanted} of {wanted_count}")]
    Slot {
        /// Its shard.
        shard: ShardId,
        /// Its layout.
        count: ShardCount,
        /// The shard that was to resume it.
        wanted: ShardId,
        /// The layout of that shard.
        wanted_count: ShardCount,
    },
    /// It asked for other intents, and they are fixed for its life (GW-181).
    #[error("it was begun with the intents {intents}, not with {wanted}")]
    Intents {
        /// Its intents.
        intents: Intents,
        /// Those of the shard that was to resume it.
        wanted: Intents,
    },
    /// It was made on a connection of another version, encoding or compression (GW-012).
    #[error("it was begun on a connection with {query:?}, not with {wanted:?}")]
    Wire {
        /// The query of its connection.
        query: String,
        /// That of the shard that was to resume it.
        wanted: String,
    },
    /// The token would go over the network in the clear.
    #[error(
        "its resume URL is not encrypted ({scheme}), and the gateway's is: correct the URL to wss, or give no such session"
    )]
    Downgrade {
        /// The scheme of its resume URL.
        scheme: String,
    },
}

impl Session {
    /// A session that Discord does not know, for tests of whatever keeps sessions.
    pub fn sample(shard: ShardId, count: ShardCount) -> Self {
        Self {
            id: format!("session of shard {shard} of {count}"),
            resume_url: Some("wss://resume.example".to_owned()),
            sequence: 1,
            shard,
            count,
            intents: Intents::GUILDS,
            query: "v=10&encoding=json".to_owned(),
        }
    }

    /// Whether the shard of this configuration can resume it. Whether Discord still has it is another question.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub fn check(&self, config: &ShardConfig) -> Result<(), SessionMismatch> {
        if (self.shard, self.count) != (config.shard, config.count) {
            let (wanted, wanted_count) = (config.shard, config.count);
            return Err(SessionMismatch::Slot { shard: self.shard, count: self.count, wanted, wanted_count });
        }
        if self.intents != config.intents {
            return Err(SessionMismatch::Intents { intents: self.intents, wanted: config.intents });
        }
        let wanted = config.wire.query();
        if self.query != wanted {
            return Err(SessionMismatch::Wire { query: self.query.clone(), wanted });
        }
        let resume_url = self.resume_url.as_deref().and_then(|url| Url::parse(url).ok());
        match resume_url.filter(|url| is_secure(&config.gateway_url) && matches!(url.scheme(), "ws" | "http"))
        {
            Some(url) => Err(SessionMismatch::Downgrade { scheme: url.scheme().to_owned() }),
            None => Ok(()),
        }
    }

    /// Where it is resumed, if that can be used; else the bootstrap URL has to do.
    pub(crate) fn resume_url(&self, gateway_url: &Url) -> Option<Url> {
        usable_resume_url(self.resume_url.as_deref()?, gateway_url)
    }
}

/// The URL that READY names, if it is one of a WebSocket, and encrypted where the bootstrap URL is.
pub(crate) fn usable_resume_url(text: &str, gateway_url: &Url) -> Option<Url> {
    let url = Url::parse(text).ok().filter(Url::has_host)?;
    let usable = url.scheme() == "wss" || (url.scheme() == "ws" && !is_secure(gateway_url));
    usable.then_some(url)
}

fn is_secure(url: &Url) -> bool {
    matches!(url.scheme(), "wss" | "https")
}
