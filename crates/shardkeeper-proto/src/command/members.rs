//! Requests for members of a guild (op 8, GW-209 to GW-216).

use serde::Serialize;

use super::{Command, CommandClass, CommandContentError, Id};
use crate::{Intents, Opcode};

/// The longest nonce, in bytes: Discord silently ignores a longer one (GW-214).
pub const MAX_NONCE_BYTES: usize = 32;
/// The limit of members that one request can name by id, or find by a prefix (GW-211).
pub const MAX_REQUESTED_MEMBERS: usize = 100;

/// A request for members of a guild (op 8, GW-062). The answer is GUILD_MEMBERS_CHUNK events of at most 1000
/// members each (GW-217). [`Command::members`] validates it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestMembers {
    guild_id: u64,
    whom: Whom,
    presences: bool,
    nonce: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whom {
    All,
    Prefix { prefix: String, limit: usize },
    Users(Vec<u64>),
}

impl RequestMembers {
    /// Requests every member. Needs the intent GUILD_MEMBERS (GW-212). Discord allows this once in 30 s per
    /// guild (GW-162).
    pub fn all(guild_id: u64) -> Self {
        Self::whom(guild_id, Whom::All)
    }

    /// Requests up to `limit` members whose names begin with `prefix`, which must not be empty. `limit` is 1
    /// to 100.
    pub fn prefix(guild_id: u64, prefix: impl Into<String>, limit: usize) -> Self {
        Self::whom(guild_id, Whom::Prefix { prefix: prefix.into(), limit })
    }

    /// Requests these users, 1 to 100 of them; users who are not members are reported in `not_found`.
    pub fn users(guild_id: u64, users: impl IntoIterator<Item = u64>) -> Self {
        Self::whom(guild_id, Whom::Users(users.into_iter().collect()))
    }

    fn whom(guild_id: u64, whom: Whom) -> Self {
        Self { guild_id, whom, presences: false, nonce: None }
    }

    /// Also requests their presences. Needs the intent GUILD_PRESENCES (GW-213).
    #[must_use]
    pub fn with_presences(mut self) -> Self {
        self.presences = true;
        self
    }

    /// Sets a text that Discord repeats in each chunk; at most 32 bytes.
    #[must_use]
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// The id of the requested guild.
    pub fn guild_id(&self) -> u64 {
        self.guild_id
    }

    /// Whether the request is for every member.
    pub fn is_for_all(&self) -> bool {
        self.whom == Whom::All
    }
}

impl Command {
    /// Validates a request for members of a guild and creates its command.
    ///
    /// # Errors
    ///
    /// The first problem that makes Discord reject or silently ignore the request.
    pub fn members(request: &RequestMembers) -> Result<Self, CommandContentError> {
        #[derive(Serialize)]
        struct Data<'a> {
            guild_id: Id,
            #[serde(skip_serializing_if = "Option::is_none")]
            query: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            user_ids: Option<Vec<Id>>,
            presences: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            nonce: Option<&'a str>,
        }
        if let Some(nonce) = request.nonce.as_ref().filter(|nonce| nonce.len() > MAX_NONCE_BYTES) {
            return Err(CommandContentError::NonceTooLong { bytes: nonce.len() });
        }
        let mut data = Data {
            guild_id: Id(request.guild_id),
            query: None,
            limit: None,
            user_ids: None,
            presences: request.presences,
            nonce: request.nonce.as_deref(),
        };
        match &request.whom {
            Whom::All => (data.query, data.limit) = (Some(""), Some(0)),
            Whom::Prefix { prefix, .. } if prefix.is_empty() => return Err(CommandContentError::EmptyPrefix),
            Whom::Prefix { limit, .. } if !(1..=MAX_REQUESTED_MEMBERS).contains(limit) => {
                return Err(CommandContentError::Limit { limit: *limit });
            }
            Whom::Prefix { prefix, limit } => {
                (data.query, data.limit) = (Some(prefix.as_str()), Some(*limit));
            }
            Whom::Users(users) if users.is_empty() => return Err(CommandContentError::NoUsers),
            Whom::Users(users) if users.len() > MAX_REQUESTED_MEMBERS => {
                return Err(CommandContentError::TooManyUsers { count: users.len() });
            }
            Whom::Users(users) => data.user_ids = Some(users.iter().copied().map(Id).collect()),
        }
        let command = Self::new(Opcode::RequestGuildMembers, request.guild_id, CommandClass::Bulk, &data)?;
        let mut needs = Intents::empty();
        needs.set(Intents::GUILD_MEMBERS, request.is_for_all());
        needs.set(Intents::GUILD_PRESENCES, request.presences);
        Ok(Self { needs, ..command })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PayloadSizeError;

    fn text(command: &Command) -> &str {
        &command.payload.text
    }

    #[test]
    fn gw_062_209_210_members_by_exactly_one_of_query_and_ids() {
        let all = Command::members(&RequestMembers::all(7).nonce("n")).unwrap();
        let expected = r#"{"op":8,"d":{"guild_id":"7","query":"","limit":0,"presences":false,"nonce":"n"}}"#;
        assert_eq!(text(&all), expected);
        let some = Command::members(&RequestMembers::prefix(7, "ma", 5).with_presences()).unwrap();
        assert_eq!(text(&some), r#"{"op":8,"d":{"guild_id":"7","query":"ma","limit":5,"presences":true}}"#);
        let users = Command::members(&RequestMembers::users(7, [1, 2])).unwrap();
        assert_eq!(text(&users), r#"{"op":8,"d":{"guild_id":"7","user_ids":["1","2"],"presences":false}}"#);
    }

    #[test]
    fn gw_211_214_what_discord_would_ignore_is_refused_here() {
        let nonce = |nonce: &str| Command::members(&RequestMembers::all(7).nonce(nonce)).map(drop);
        assert_eq!(nonce(&"n".repeat(32)), Ok(()));
        assert_eq!(nonce(&"n".repeat(33)), Err(CommandContentError::NonceTooLong { bytes: 33 }));
        assert_eq!(nonce(&"ü".repeat(17)), Err(CommandContentError::NonceTooLong { bytes: 34 }));
        let users = |count: u64| Command::members(&RequestMembers::users(7, 0..count)).map(drop);
        assert_eq!((users(0), users(100)), (Err(CommandContentError::NoUsers), Ok(())));
        assert_eq!(users(101), Err(CommandContentError::TooManyUsers { count: 101 }));
        let prefix =
            |prefix: &str, limit| Command::members(&RequestMembers::prefix(7, prefix, limit)).map(drop);
        assert_eq!(prefix("", 5), Err(CommandContentError::EmptyPrefix));
        assert_eq!(prefix("a", 0), Err(CommandContentError::Limit { limit: 0 }));
        assert_eq!(prefix("a", 101), Err(CommandContentError::Limit { limit: 101 }));
        let long = Command::members(&RequestMembers::prefix(7, "a".repeat(5000), 1)).unwrap_err();
        assert!(
            matches!(long, CommandContentError::TooLarge(PayloadSizeError { limit: 4096, .. })),
            "{long}"
        );
    }

    #[test]
    fn gw_027_the_largest_requests_fit() {
        let ids = 10_000_000_000_000_000_000_u64..;
        let users = RequestMembers::users(u64::MAX, ids.take(100)).with_presences().nonce("n".repeat(32));
        assert_eq!(text(&Command::members(&users).unwrap()).len(), 2421);
    }

    #[test]
    fn gw_212_213_a_request_knows_the_intents_it_needs() {
        let needs = |request: RequestMembers| Command::members(&request).unwrap().needs();
        assert_eq!(needs(RequestMembers::all(1)), Intents::GUILD_MEMBERS);
        assert_eq!(needs(RequestMembers::users(1, [2]).with_presences()), Intents::GUILD_PRESENCES);
        assert_eq!(needs(RequestMembers::prefix(1, "a", 5)), Intents::empty());
    }
}
