//! Close codes: what each of Discord's means, and those that shardkeeper sends (GW-076 to GW-101).

use std::fmt;

/// A close code that Discord sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a number, and nothing else")]
pub struct CloseCode(pub u16);

/// What to do after Discord closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Resume the session. If a Resume ends in such a code again, the session still exists: Discord ends a
    /// session with op 9 or a code of [`NewSession`](Self::NewSession).
    Resume,
    /// The session is gone: start a new one.
    NewSession,
    /// Reconnecting with the same parameters cannot work (GW-095).
    Fatal(Scope),
}

/// What a fatal code affects: the layout, or the whole bot (GW-096).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a fatal close ends either one or the other")]
pub enum Scope {
    /// Discord does not accept the number of shards or this shard's id: a new layout is needed.
    Layout,
    /// Discord does not accept the token, the intents or the version: every shard of the bot must stop.
    Bot,
}

impl CloseCode {
    /// How to recover from this code. Codes that are not in the table allow a Resume (GW-094: an unknown code
    /// is no reason to give up).
    pub const fn recovery(self) -> Recovery {
        match self.0 {
            // GW-079, GW-082, GW-083, GW-085: Discord has ended the session.
            4003 | 4006 | 4007 | 4009 => Recovery::NewSession,
            // GW-086, GW-087: Discord refuses the shard layout.
            4010 | 4011 => Recovery::Fatal(Scope::Layout),
            // GW-080, GW-088, GW-089, GW-090: Discord refuses the token, the version or the intents.
            4004 | 4012..=4014 => Recovery::Fatal(Scope::Bot),
            // GW-076 to GW-078, GW-081, GW-084, GW-091 to GW-094: a Resume may work. A node that restarts or
            // is overloaded answers each Resume with one of these for a while, and keeps the session.
            _ => Recovery::Resume,
        }
    }

    /// A short explanation of the code; for a fatal one, also the remedy.
    pub const fn meaning(self) -> &'static str {
        match self.0 {
            1000 => "closed normally",
            1001 => "going away",
            4000 => "unknown error",
            4001 => "unknown opcode",
            4002 => "undecodable payload",
            4003 => "not authenticated",
            4004 => "authentication failed: the token is invalid; copy a valid one from the developer portal",
            4005 => "already authenticated",
            4007 => "invalid sequence",
            4008 => "rate limited",
            4009 => "session timed out",
            4010 => {
                "invalid shard: the shard count is not one that Discord accepts for this bot; use the recommended count"
            }
            4011 => "sharding required: a shard would hold too many guilds; use more shards",
            4012 => "invalid API version",
            4013 => "invalid intents: an unknown bit is set",
            4014 => {
                "disallowed intents: a privileged intent is not enabled; switch it on in the developer portal or do not ask for it"
            }
            _ => "unknown code",
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.meaning())
    }
}

/// The close codes that shardkeeper sends. All except [`STOP`](ours::STOP) keep the session: they are from
/// 4000 to 4999 (GW-100), and only 1000 and 1001 end it (GW-099).
pub mod ours {
    /// The bot stops for good: the session ends and the bot shows as offline (GW-098).
    pub const STOP: u16 = 1000;
    /// Sent after Discord requested a new connection (op 7).
    pub const RECONNECT: u16 = 4900;
    /// Sent when a heartbeat was not acknowledged.
    pub const ZOMBIED: u16 = 4901;
    /// Sent after Invalid Session (op 9).
    pub const INVALID_SESSION: u16 = 4902;
    /// Sent when Discord did not answer in time.
    pub const DEADLINE: u16 = 4903;
    /// Sent when a received payload could not be parsed.
    pub const UNREADABLE: u16 = 4904;
    /// Sent when this process stops but keeps the session, which another process may resume.
    pub const DETACH: u16 = 4905;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_076_to_095_each_code_has_its_recovery() {
        use Recovery::{Fatal, NewSession, Resume};
        let table = [
            // GW-130: Resume after every close code that allows reconnecting.
            (1000, Resume),
            (1001, Resume),
            (1005, Resume),
            (1006, Resume),
            (1011, Resume),
            (1012, Resume),
            (1013, Resume),
            (4000, Resume),
            (4001, Resume),
            (4002, Resume),
            (4003, NewSession),
            // GW-096: 4004, 4012, 4013 and 4014 concern the whole token; 4010 and 4011 concern the layout.
            (4004, Fatal(Scope::Bot)),
            (4005, Resume),
            (4006, NewSession),
            (4007, NewSession),
            (4008, Resume),
            (4009, NewSession),
            (4010, Fatal(Scope::Layout)),
            (4011, Fatal(Scope::Layout)),
            (4012, Fatal(Scope::Bot)),
            (4013, Fatal(Scope::Bot)),
            (4014, Fatal(Scope::Bot)),
            (4015, Resume),
            (4999, Resume),
        ];
        for (code, recovery) in table {
            assert_eq!(CloseCode(code).recovery(), recovery, "{code}");
        }
        let fatal = (0..=u16::MAX).filter(|code| matches!(CloseCode(*code).recovery(), Fatal(_)));
        assert_eq!(fatal.collect::<Vec<_>>(), [4004, 4010, 4011, 4012, 4013, 4014]);
    }

    #[test]
    fn gw_099_only_stop_gives_the_session_up() {
        for code in [
            ours::RECONNECT,
            ours::ZOMBIED,
            ours::INVALID_SESSION,
            ours::DEADLINE,
            ours::UNREADABLE,
            ours::DETACH,
        ] {
            // GW-100: a close that keeps the session has an explicit code from 4000 to 4999.
            assert!((4000..5000).contains(&code));
        }
    }
}
