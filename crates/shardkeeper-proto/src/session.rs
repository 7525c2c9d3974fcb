//! The data that a resume needs.

use std::fmt;

use serde::{Deserialize, Serialize};

use url::Url;

use crate::{Intents, ShardConfig, ShardCount, ShardId};

/// A Gateway session, which outlives its connections. The id, resume URL and sequence number belong together
/// (GW-124).
///
/// A session is a secret like the token (together they allow resuming it), so `Debug` shows only the sequence
/// number. Serialize it only into storage that is as private as the token's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Discord's id of the session.
    pub id: String,
    /// The URL for resuming, without a query. `None` when READY had no usable one; then the bootstrap URL is
    /// used.
    pub resume_url: Option<String>,
    /// The last sequence number received in the session, which continues across its connections (GW-020).
    pub sequence: u64,
    /// The shard that identified. A session can be resumed only as the same shard of the same layout.
    pub shard: ShardId,
    /// The layout that the shard identified in.
    pub count: ShardCount,
    /// The requested intents, which are fixed for the life of the session (GW-181).
    pub intents: Intents,
    /// The query of the connection on which the session started; a resume must use the same (GW-012).
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

/// Why a shard cannot resume a session.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionMismatch {
    /// The session belongs to another shard or layout.
    #[error("the session belongs to shard {shard} of {count}, not to shard {wanted} of {wanted_count}")]
    Slot {
        /// The session's shard.
        shard: ShardId,
        /// The session's layout.
        count: ShardCount,
        /// The shard that was to resume the session.
        wanted: ShardId,
        /// The layout of that shard.
        wanted_count: ShardCount,
    },
    /// The session has other intents, and they are fixed for its life (GW-181).
    #[error("the session was started with the intents {intents}, not with {wanted}")]
    Intents {
        /// The session's intents.
        intents: Intents,
        /// The intents of the shard that was to resume the session.
        wanted: Intents,
    },
    /// The session was started on a connection of another version, encoding or compression (GW-012).
    #[error("the session was started on a connection with {query:?}, not with {wanted:?}")]
    Wire {
        /// The query of the session's connection.
        query: String,
        /// The query of the shard that was to resume the session.
        wanted: String,
    },
    /// The resume URL is not encrypted, so the token would be readable on the network.
    #[error(
        "the session's resume URL is not encrypted ({scheme}), but the gateway's is: change it to wss, or remove \
         the session"
    )]
    Downgrade {
        /// The scheme of the session's resume URL.
        scheme: String,
    },
}

impl Session {
    /// A made-up session, for tests of code that stores sessions.
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

    /// Checks whether a shard of this configuration can resume the session. Whether Discord still keeps the
    /// session is not checked.
    ///
    /// # Errors
    ///
    /// The first reason why the shard cannot resume it.
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

    /// The URL for resuming the session, if usable; otherwise the bootstrap URL has to be used.
    pub(crate) fn resume_url(&self, gateway_url: &Url) -> Option<Url> {
        usable_resume_url(self.resume_url.as_deref()?, gateway_url)
    }
}

/// The URL in READY, if it is a WebSocket URL and, when the bootstrap URL is encrypted, encrypted too.
pub(crate) fn usable_resume_url(text: &str, gateway_url: &Url) -> Option<Url> {
    let url = Url::parse(text).ok().filter(Url::has_host)?;
    let usable = url.scheme() == "wss" || (url.scheme() == "ws" && !is_secure(gateway_url));
    usable.then_some(url)
}

fn is_secure(url: &Url) -> bool {
    matches!(url.scheme(), "wss" | "https")
}
