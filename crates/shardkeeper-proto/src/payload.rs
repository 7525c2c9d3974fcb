//! The payloads that a shard sends, as JSON text.

use std::fmt;

use serde::Serialize;

use crate::{
    CommandContentError, Intents, Opcode, Presence, PresenceError, Session, ShardCount, ShardId, Token,
};

/// The largest payload that Discord accepts, in bytes (GW-026).
pub const MAX_PAYLOAD_BYTES: usize = 4096;
/// The largest presence, in bytes. Identify, limited to 4096 bytes, has to hold it along with its other
/// fields.
pub const MAX_PRESENCE_BYTES: usize = 3072;

/// A payload to send. `Debug` shows only the opcode and size, since Identify and Resume hold the token.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payload {
    /// The opcode's number: that of an [`Opcode`], or any other in a raw command.
    pub opcode: u8,
    /// The JSON text.
    pub text: String,
}

impl Payload {
    /// Whether the payload has this opcode.
    pub fn is(&self, opcode: Opcode) -> bool {
        self.opcode == opcode.number()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("opcode", &self.opcode)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// A command is larger than Discord accepts.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {} has {bytes} bytes, above the limit of {limit}", self.name())]
#[non_exhaustive]
pub struct PayloadSizeError {
    /// The opcode of the command.
    pub opcode: u8,
    /// The size of the payload, in bytes.
    pub bytes: usize,
    /// The limit that it exceeds, in bytes.
    pub limit: usize,
}

impl PayloadSizeError {
    fn name(&self) -> &'static str {
        match Opcode::from_number(self.opcode.into()) {
            Some(Opcode::PresenceUpdate) => "presence",
            Some(Opcode::RequestGuildMembers) => "request for members",
            _ => "command",
        }
    }
}

/// A presence that was validated and can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceUpdate {
    presence: Presence,
    text: String,
}

impl PresenceUpdate {
    /// Validates and encodes a presence.
    ///
    /// # Errors
    ///
    /// The first field that Discord would not show, or that the presence is larger than
    /// [`MAX_PRESENCE_BYTES`].
    pub fn new(presence: Presence) -> Result<Self, PresenceError> {
        presence.check()?;
        let text = encode(Opcode::PresenceUpdate, &presence);
        let bytes = encoded_bytes(&text);
        if bytes > MAX_PRESENCE_BYTES {
            let limit = MAX_PRESENCE_BYTES;
            let opcode = Opcode::PresenceUpdate.number();
            return Err(PayloadSizeError { opcode, bytes, limit }.into());
        }
        Ok(Self { presence, text })
    }

    pub(crate) fn payload(&self) -> Payload {
        Payload { opcode: Opcode::PresenceUpdate.number(), text: self.text.clone() }
    }
}

/// The fields of an Identify other than the session's own data.
pub(crate) struct Identify<'a> {
    pub(crate) token: &'a Token,
    pub(crate) shard: ShardId,
    pub(crate) count: ShardCount,
    pub(crate) intents: Intents,
    pub(crate) large_threshold: u8,
    pub(crate) library: &'a str,
    pub(crate) compress: bool,
    pub(crate) presence: Option<&'a PresenceUpdate>,
}

/// Creates op 2, which starts a new session (GW-057). GW-069 to GW-073 define its fields.
pub(crate) fn identify(identify: &Identify<'_>) -> Payload {
    #[derive(Serialize)]
    struct Data<'a> {
        token: &'a str,
        properties: Properties<'a>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        compress: bool,
        large_threshold: u8,
        shard: [u32; 2],
        #[serde(skip_serializing_if = "Option::is_none")]
        presence: Option<&'a Presence>,
        intents: u64,
    }
    #[derive(Serialize)]
    struct Properties<'a> {
        os: &'a str,
        browser: &'a str,
        device: &'a str,
    }
    let data = Data {
        token: identify.token.expose(),
        properties: Properties {
            os: std::env::consts::OS,
            browser: identify.library,
            device: identify.library,
        },
        compress: identify.compress,
        large_threshold: identify.large_threshold,
        shard: [identify.shard.0, identify.count.get()],
        presence: identify.presence.map(|update| &update.presence),
        intents: identify.intents.bits(),
    };
    Payload { opcode: Opcode::Identify.number(), text: encode(Opcode::Identify, &data) }
}

/// Creates op 6, which resumes a session with `token`, `session_id` and `seq` (GW-060).
pub(crate) fn resume(token: &Token, session: &Session) -> Payload {
    #[derive(Serialize)]
    struct Data<'a> {
        token: &'a str,
        session_id: &'a str,
        seq: u64,
    }
    let data = Data { token: token.expose(), session_id: &session.id, seq: session.sequence };
    Payload { opcode: Opcode::Resume.number(), text: encode(Opcode::Resume, &data) }
}

/// Creates op 1 with the last sequence number of the session, or null (GW-056, GW-112).
pub(crate) fn heartbeat(sequence: Option<u64>) -> Payload {
    Payload { opcode: Opcode::Heartbeat.number(), text: encode(Opcode::Heartbeat, &sequence) }
}

/// Creates the payload of a command, unless it is larger than Discord accepts (GW-026).
pub(crate) fn command(opcode: Opcode, data: &impl Serialize) -> Result<Payload, PayloadSizeError> {
    let text = encode(opcode, data);
    let bytes = encoded_bytes(&text);
    check_size(Payload { opcode: opcode.number(), text }, bytes)
}

/// Creates the payload of a raw command with any opcode and data that can be encoded.
pub(crate) fn raw(opcode: u8, data: &impl Serialize) -> Result<Payload, CommandContentError> {
    let unencodable =
        |error: &dyn fmt::Display| CommandContentError::Unencodable { reason: error.to_string() };
    let text =
        serde_json::to_string(&Envelope { op: opcode, d: data }).map_err(|error| unencodable(&error))?;
    // Discord would end the connection over data that is nested too deeply for its encodings.
    serde_json::from_str::<serde_json::Value>(&text).map_err(|error| unencodable(&error))?;
    #[cfg(feature = "etf")]
    crate::etf::from_json(&text).map_err(|error| unencodable(&error))?;
    let bytes = encoded_bytes(&text);
    Ok(check_size(Payload { opcode, text }, bytes)?)
}

fn check_size(payload: Payload, bytes: usize) -> Result<Payload, PayloadSizeError> {
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(PayloadSizeError { opcode: payload.opcode, bytes, limit: MAX_PAYLOAD_BYTES });
    }
    Ok(payload)
}

/// The size of a payload in the larger of its encodings, so that the limit holds for both.
#[cfg(feature = "etf")]
fn encoded_bytes(text: &str) -> usize {
    let term = crate::etf::from_json(text).expect("JSON made by serde_json is valid, and not nested deeply");
    text.len().max(term.len())
}

#[cfg(not(feature = "etf"))]
fn encoded_bytes(text: &str) -> usize {
    text.len()
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    op: u8,
    d: &'a T,
}

fn encode(opcode: Opcode, data: &impl Serialize) -> String {
    serde_json::to_string(&Envelope { op: opcode.number(), d: data })
        .expect("structs of strings and numbers always encode")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activity, OnlineStatus};

    #[test]
    fn gw_056_112_heartbeats() {
        assert_eq!(heartbeat(Some(251)).text, r#"{"op":1,"d":251}"#);
        assert_eq!(heartbeat(None).text, r#"{"op":1,"d":null}"#);
    }

    /// A presence whose payload has exactly this many bytes.
    fn presence_of(bytes: usize) -> Presence {
        let playing =
            |presence: &Presence, chars| presence.clone().activity(Activity::playing("x".repeat(chars)));
        let size = |presence: &Presence| encoded_bytes(&encode(Opcode::PresenceUpdate, presence));
        let mut presence = Presence::default();
        while size(&playing(&presence, 50)) + 40 < bytes {
            presence = playing(&presence, 50);
        }
        let rest = bytes - size(&playing(&presence, 0));
        playing(&presence, rest)
    }

    #[test]
    fn gw_057_070_071_identify() {
        let token = Token::new("Bot T").unwrap();
        let presence = PresenceUpdate::new(Presence::new(OnlineStatus::Dnd)).unwrap();
        let payload = identify(&Identify {
            token: &token,
            shard: ShardId(3),
            count: ShardCount::new(16).unwrap(),
            intents: Intents::UNPRIVILEGED,
            large_threshold: 50,
            library: "lib",
            compress: false,
            presence: Some(&presence),
        });
        let os = std::env::consts::OS;
        // GW-069: `intents` is mandatory. GW-279: `capabilities` is not sent.
        let expected = format!(
            r#"{{"op":2,"d":{{"token":"T","properties":{{"os":"{os}","browser":"lib","device":"lib"}},"large_threshold":50,"shard":[3,16],"presence":{{"since":null,"activities":[],"status":"dnd","afk":false}},"intents":53575421}}}}"#
        );
        assert_eq!(payload.text, expected);
        assert!(!format!("{payload:?}").contains("token"));
    }

    #[test]
    fn gw_026_the_largest_identify_fits() {
        let token = Token::new(&"t".repeat(512)).unwrap();
        let presence = PresenceUpdate::new(presence_of(MAX_PRESENCE_BYTES)).unwrap();
        let payload = identify(&Identify {
            token: &token,
            shard: ShardId(u32::MAX - 1),
            count: ShardCount::new(u32::MAX).unwrap(),
            intents: Intents::all(),
            large_threshold: 250,
            library: &"l".repeat(100),
            compress: true,
            presence: Some(&presence),
        });
        assert!(encoded_bytes(&payload.text) <= MAX_PAYLOAD_BYTES, "{}", encoded_bytes(&payload.text));
    }

    #[test]
    fn gw_060_resume() {
        let session = Session {
            id: "S".into(),
            resume_url: None,
            sequence: 1337,
            shard: ShardId(0),
            count: ShardCount::new(1).unwrap(),
            intents: Intents::GUILDS,
            query: String::new(),
        };
        // GW-070: the token goes without its prefix, in Resume as in Identify.
        let payload = resume(&Token::new("Bot T").unwrap(), &session);
        assert_eq!(payload.text, r#"{"op":6,"d":{"token":"T","session_id":"S","seq":1337}}"#);
    }

    #[test]
    fn gw_026_a_presence_too_large_is_refused_with_its_size() {
        let of = |bytes: usize| PresenceUpdate::new(presence_of(bytes));
        assert!(of(MAX_PRESENCE_BYTES).is_ok());
        let error = of(MAX_PRESENCE_BYTES + 1).unwrap_err();
        assert_eq!(error.to_string(), "the presence has 3073 bytes, above the limit of 3072");
    }
}
