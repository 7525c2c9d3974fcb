//! The judgements: every mistake of a client that the simulator notices, with its rule, its grade and a
//! reason.
//!
//! They are constants, so that each has a grade and a reason. The code that judges clients is in `judge`,
//! `login`, `commands`, `connection` and `rest`.

use serde::Serialize;

/// How serious it is that a client did not follow a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Grade {
    /// Discord would close the connection, refuse the client, or drop the session.
    Violation,
    /// Discord advises against it or ignores it, and the session continues. Cases for which Discord documents
    /// no consequence have this grade too.
    Advice,
}

/// A kind of mistake that the simulator notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// The number of the rule, `GW-nnn`.
    pub rule: &'static str,
    /// The grade.
    pub grade: Grade,
    /// What the client did.
    pub what: &'static str,
    /// The reason for the grade: what Discord does about it.
    pub reason: &'static str,
}

macro_rules! judgements {
    ($($name:ident: $rule:literal $grade:ident $what:literal, $reason:literal;)*) => {
        $(
            pub(crate) const $name: &Judgement =
                &Judgement { rule: $rule, grade: Grade::$grade, what: $what, reason: $reason };
        )*

        /// Every kind of mistake that the simulator notices.
        ///
        /// | rule | grade | what the client did | why it has this grade |
        /// |---|---|---|---|
        $(#[doc = concat!("| ", $rule, " | ", stringify!($grade), " | ", $what, " | ", $reason, " |")])*
        pub const JUDGEMENTS: &[&Judgement] = &[$($name),*];
    };
}

judgements! {
    // The WebSocket.
    BAD_HANDSHAKE: "GW-013" Violation "a WebSocket handshake that RFC 6455 does not allow",
        "Discord refuses the handshake.";
    BAD_FRAME: "GW-013" Violation "a WebSocket frame that RFC 6455 does not allow",
        "Discord closes the connection with 1002, or with 1007 for text that is not UTF-8.";
    QUERY_INCOMPLETE: "GW-010" Advice "a Gateway URL without v or without encoding",
        "Discord uses its defaults.";
    CLOSE_CODE: "GW-100" Advice "a close frame with a code below 4000 that is neither 1000 nor 1001",
        "Discord keeps the session.";
    CLOSE_WITHOUT_CODE: "GW-101" Advice "a close frame without a code",
        "Discord does not document whether the session survives.";

    // Payloads.
    PAYLOAD_TOO_LARGE: "GW-026" Violation "a payload of more than 4096 bytes",
        "Discord closes the connection with 4002.";
    TOO_MANY_PAYLOADS: "GW-155" Violation "more than 120 payloads in 60 s",
        "Discord closes the connection with 4008.";
    UNREADABLE: "GW-078" Violation "a payload that cannot be decoded",
        "Discord closes the connection with 4002.";
    ETF_KEY: "GW-033" Violation "a key in ETF that is not a binary",
        "Discord closes the connection with 4002.";
    ETF_COMPRESSED: "GW-034" Violation "a compressed term in ETF",
        "Discord closes the connection with 4002.";
    ETF_VERSION: "GW-035" Violation "ETF that does not begin with byte 131",
        "Discord closes the connection with 4002.";
    ETF_LIST: "GW-038" Violation "a list in ETF without an empty list as its tail",
        "Discord closes the connection with 4002.";
    RECEIVE_ONLY_OPCODE: "GW-030" Violation "an opcode that only Discord sends",
        "Discord closes the connection with 4001.";
    UNKNOWN_OPCODE: "GW-068" Violation "an opcode that does not exist for bots",
        "Discord closes the connection with 4001.";
    COMMAND_BEFORE_LOGIN: "GW-028" Violation "a command before Identify or Resume",
        "Discord closes the connection with 4003.";

    // Heartbeats.
    HEARTBEAT_MISSING: "GW-111" Violation "no heartbeat within the interval and its tolerance",
        "Discord closes the connection.";
    HEARTBEAT_ANSWER: "GW-121" Violation "op 11 from the client",
        "Discord closes the connection with 4001.";
    HEARTBEATS_UNJITTERED: "GW-110" Advice "first heartbeats that all come at the same time after Hello",
        "Discord accepts them; jitter would spread its load.";
    HEARTBEAT_SEQUENCE: "GW-112" Advice "a heartbeat whose sequence is not the last one received",
        "Discord acknowledges it.";
    HEARTBEAT_SEQUENCE_BACK: "GW-019" Advice "a heartbeat with a lower sequence than the one before",
        "Discord acknowledges it.";
    HEARTBEAT_TO_ZOMBIE: "GW-114" Advice "a heartbeat after one that was not acknowledged",
        "Discord accepts it; the client notices a dead connection later than it could.";
    HEARTBEAT_NOT_GIVEN: "GW-115" Advice "op 1 that was not answered with a heartbeat",
        "Discord does not document a penalty, and accepts the next heartbeat of the interval.";
    HEARTBEAT_TOO_EARLY: "GW-118" Advice "a heartbeat long before the interval is over",
        "Discord acknowledges it.";

    // Identify.
    IDENTIFY_INCOMPLETE: "GW-069" Violation "an Identify without token, properties or intents",
        "Discord closes the connection with 4002.";
    INVALID_SHARD: "GW-073" Violation "an Identify with a shard id that is not below its number of shards",
        "Discord closes the connection with 4010.";
    SHARDS_NOT_A_MULTIPLE: "GW-235" Violation "an Identify with a number of shards that the bot may not have",
        "Discord closes the connection with 4010.";
    UNKNOWN_INTENTS: "GW-178" Violation "an Identify with intents that do not exist",
        "Discord closes the connection with 4013.";
    ALREADY_AUTHENTICATED: "GW-074" Violation "an Identify or Resume on a connection that has a session",
        "Discord closes the connection with 4005.";
    IDENTIFY_BEHIND_RESUME: "GW-135" Violation "an Identify after a Resume that was not answered",
        "Discord closes the connection with 4005.";
    IDENTIFY_TOO_EARLY: "GW-170" Violation "a second Identify of one key within 5 s",
        "Discord refuses the Identify with op 9.";
    IDENTIFIES_EXHAUSTED: "GW-166" Violation "an Identify beyond the limit of the day",
        "Discord ends every session and resets the token.";
    RETURN_AFTER_REFUSAL: "GW-095" Violation "an Identify after a close code that is final",
        "Discord refuses it with the same code.";
    RETURN_OF_ANOTHER_SHARD: "GW-096" Advice "an Identify long after another shard got a close code that concerns the bot",
        "Discord gives each shard its own answer.";
    IDENTIFY_OUT_OF_ORDER: "GW-171" Advice "shards of one key that identify out of order",
        "Discord accepts them.";
    IDENTIFY_AT_RESUME_URL: "GW-140" Advice "an Identify at the URL that is for Resume",
        "Discord accepts it, and gives another URL in READY.";
    LOGIN_TOO_SOON: "GW-149" Advice "an Identify or Resume less than 1 s after op 9",
        "Discord asks for the wait, and does not document a penalty.";
    PREFIXED_TOKEN: "GW-070" Advice "an Identify whose token has the prefix Bot",
        "Discord accepts it, if the Resume has the same.";
    TWO_COMPRESSIONS: "GW-040" Advice "payload compression together with transport compression or ETF",
        "Discord ignores the first.";
    OLD_PROPERTIES: "GW-071" Advice "properties whose names begin with $",
        "Discord accepts them; they are deprecated.";
    LARGE_THRESHOLD: "GW-072" Advice "a large_threshold that is not between 50 and 250",
        "Discord does not document which value it uses instead.";
    CAPABILITIES: "GW-279" Advice "an Identify with capabilities",
        "Discord accepts them; they are not for general use.";

    // Resume.
    RESUME_INCOMPLETE: "GW-131" Violation "a Resume without token, session_id or seq",
        "Discord closes the connection with 4002.";
    RESUME_OTHER_TOKEN: "GW-070" Violation "a Resume whose token is not written as in the Identify",
        "Discord refuses it with op 9, and the session is lost.";
    RESUME_AHEAD: "GW-083" Violation "a Resume from a sequence that was never sent",
        "Discord closes the connection with 4007, and the session is lost.";
    RESUME_AFTER_OWN_CLOSE: "GW-098" Violation "a Resume of a session that the client closed with 1000 or 1001",
        "Discord dropped the session at that close, and refuses the Resume with op 9.";
    RESUME_AFTER_OP_9: "GW-148" Violation "a Resume of a session that op 9 ended",
        "Discord refuses it with op 9 again.";
    RESUME_AFTER_REFUSAL: "GW-140" Violation "a Resume of a session whose Resume was refused before",
        "Discord refuses it with op 9, each time.";
    RESUME_AFTER_4003: "GW-079" Advice "a Resume of a session that close code 4003 ended",
        "The session is gone already; the answer is op 9, which costs one round trip.";
    RESUME_AFTER_4006: "GW-082" Advice "a Resume of a session that close code 4006 ended",
        "The session is gone already; the answer is op 9, which costs one round trip.";
    RESUME_AFTER_4007: "GW-083" Advice "a Resume of a session that close code 4007 ended",
        "The session is gone already; the answer is op 9, which costs one round trip.";
    RESUME_AFTER_4009: "GW-085" Advice "a Resume of a session that close code 4009 ended",
        "The session is gone already; the answer is op 9, which costs one round trip.";
    RESUME_AT_BOOTSTRAP_URL: "GW-132" Advice "a Resume at the bootstrap URL",
        "Discord accepts it, and disconnects more often.";
    RESUME_OTHER_QUERY: "GW-012" Advice "a Resume with another version, encoding or compression than the Identify",
        "Discord does not document what it does; in the simulator the session continues.";
    SESSION_LEFT_BEHIND: "GW-243" Advice "a session that expired, although another one had taken over its guilds",
        "The session lives on for minutes, and holds the presence.";
    RECONNECT_IGNORED: "GW-144" Violation "op 7 that no new connection followed",
        "Discord closes the connection.";

    // Commands.
    PRESENCE_INCOMPLETE: "GW-192" Advice "a presence without since, activities, status or afk",
        "Discord accepts it.";
    PRESENCE_STATUS: "GW-193" Advice "a presence with a status that does not exist",
        "Discord does not document what it shows instead.";
    TOO_MANY_PRESENCES: "GW-161" Advice "a sixth presence within 20 s",
        "Discord ignores it.";
    ACTIVITY_TYPE: "GW-195" Advice "an activity whose type does not exist, or a stream that is not on Twitch or YouTube",
        "Discord does not show it.";
    ACTIVITY_NAME: "GW-196" Advice "an activity without a name",
        "Discord does not show it.";
    VOICE_INCOMPLETE: "GW-201" Advice "op 4 without guild_id, channel_id, self_mute or self_deaf",
        "Discord treats a missing flag as false.";
    VOICE_ELSEWHERE: "GW-208" Advice "op 4 for a guild of another session, or for a channel that has no voice",
        "Discord ignores it.";
    VOICE_CUT: "GW-244" Advice "a session closed with 1000 while it carried the bot's voice in a guild that another session has too",
        "Discord ends the voice connection with its session.";
    MEMBERS_OF_GUILDS: "GW-209" Violation "op 8 with a list of guilds",
        "Discord closes the connection with 4002.";
    MEMBERS_AMBIGUOUS: "GW-210" Advice "op 8 with both or neither of query and user_ids, or with a query and without limit",
        "Discord answers according to its own interpretation.";
    MEMBERS_TOO_MANY: "GW-211" Advice "op 8 with more than 100 user_ids",
        "Discord answers for the first 100.";
    MEMBERS_WITHOUT_INTENT: "GW-212" Advice "op 8 for all members without the intent GUILD_MEMBERS",
        "Discord ignores it.";
    NONCE_TOO_LONG: "GW-214" Advice "op 8 with a nonce of more than 32 bytes",
        "Discord leaves the nonce out of its answer.";
    GUILD_ELSEWHERE: "GW-215" Advice "a request for a guild of another session",
        "Discord ignores it.";
    SOUNDS_INCOMPLETE: "GW-221" Advice "op 31 without guild_ids",
        "Discord does not document what it does.";
    SOUNDS_ELSEWHERE: "GW-222" Advice "op 31 for a guild of another session",
        "Discord ignores it.";
    CHANNEL_INFO_FIELDS: "GW-224" Advice "op 43 without fields, or with fields that do not exist",
        "Discord does not document what it does.";

    // REST.
    TOKEN_USED_AGAIN: "GW-297" Violation "a request with a token after it was answered with 401",
        "Discord refuses it, and 10,000 such requests in 10 minutes ban the address.";
    USER_AGENT: "GW-281" Advice "a request whose User-Agent is not DiscordBot (url, version)",
        "Discord accepts it; its edge may block the client.";
    NO_VERSION: "GW-282" Advice "a request whose path names no version",
        "Discord uses its default, which is deprecated.";
    RETRY_TOO_SOON: "GW-290" Advice "a request before the wait of a 429 was over",
        "Discord answers 429 again; a client at its limits gets one now and then without a mistake of its own.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_judgement_has_a_rule_a_grade_and_a_reason() {
        let mut seen = BTreeSet::new();
        for judgement in JUDGEMENTS {
            let number = judgement.rule.strip_prefix("GW-").and_then(|number| number.parse().ok());
            assert!(number.is_some_and(|number: u32| (1..=303).contains(&number)), "{judgement:?}");
            assert!(judgement.reason.ends_with('.') && !judgement.what.is_empty(), "{judgement:?}");
            assert!(seen.insert((judgement.rule, judgement.what)), "twice: {judgement:?}");
            // The definition of the grade: something happens to the connection, the client or the session.
            let punished = ["closes", "refuses", "dropped", "is lost", "resets"];
            let is_punished = punished.iter().any(|word| judgement.reason.contains(word));
            assert_eq!(judgement.grade == Grade::Violation, is_punished, "{judgement:?}");
        }
    }

    /// Nine of ten popular libraries do these things, and Discord accepts them.
    #[test]
    fn what_healthy_libraries_do_is_advice() {
        for advice in [
            RESUME_AFTER_4007,
            RESUME_AFTER_4009,
            PRESENCE_INCOMPLETE,
            VOICE_INCOMPLETE,
            USER_AGENT,
            PREFIXED_TOKEN,
        ] {
            assert_eq!(advice.grade, Grade::Advice, "{advice:?}");
        }
    }
}
