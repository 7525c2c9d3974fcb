//! Gateways that differ from Discord's in one way. Clients should tolerate most of these, and fail clearly
//! with the rest.
//!
//! This module rewrites payloads, as JSON text before encoding. Differences in WebSocket frames and in the
//! handshake are made by the code that writes those.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

/// A way in which one connection differs from Discord's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Odd {
    /// The heartbeat interval is a float.
    HelloFloat,
    /// The heartbeat interval is text.
    HelloText,
    /// Hello has only its opcode and the interval.
    HelloBare,
    /// Hello has no interval. No client can continue after that.
    HelloUseless,
    /// The `s` of READY is `null`.
    ReadyUnnumbered,
    /// READY has no `s`.
    ReadyWithoutNumber,
    /// READY has no `resume_gateway_url`.
    ReadyWithoutUrl,
    /// The `resume_gateway_url` is empty.
    ReadyEmptyUrl,
    /// The `resume_gateway_url` is not a URL.
    ReadyNoUrl,
    /// The `resume_gateway_url` has the scheme `http`.
    ReadyHttpUrl,
    /// READY has no `shard`.
    ReadyWithoutShard,
    /// The `shard` of READY is text.
    ReadyOddShard,
    /// READY is that of another shard. A client should not accept it (GW-129).
    ReadyOtherShard,
    /// The `s` of RESUMED is `null`.
    ResumedUnnumbered,
    /// RESUMED has no `s`, and its `d` is `null`.
    ResumedBare,
    /// Every third dispatch has the `s` `null`.
    SomeUnnumbered,
    /// The `s` of each dispatch is text.
    NumbersAsText,
    /// Every payload is JSON in a text frame: the gateway ignores `compress` and `encoding` in the URL.
    TextFrames,
    /// Every second payload is JSON in a text frame, the others are as the URL asks.
    SomeTextFrames,
    /// Payloads are not compressed and come in binary frames.
    BinaryFrames,
    /// With `zstd-stream`, each message is a complete zstd frame.
    FramePerMessage,
    /// Two dispatches come in one message, if two are waiting.
    TwoInOne,
    /// Up to a hundred waiting dispatches come in one message.
    ManyInOne,
    /// The answer to the handshake has `Connection: keep-alive, Upgrade`.
    KeepAliveUpgrade,
    /// The JSON has its keys in another order, and white space.
    Spaced,
    /// Three more payloads come with each payload: with an unknown opcode, a very large opcode, and op 5.
    Strangers,
}

impl Odd {
    /// Every difference.
    pub const ALL: [Self; 26] = [
        Self::HelloFloat,
        Self::HelloText,
        Self::HelloBare,
        Self::HelloUseless,
        Self::ReadyUnnumbered,
        Self::ReadyWithoutNumber,
        Self::ReadyWithoutUrl,
        Self::ReadyEmptyUrl,
        Self::ReadyNoUrl,
        Self::ReadyHttpUrl,
        Self::ReadyWithoutShard,
        Self::ReadyOddShard,
        Self::ReadyOtherShard,
        Self::ResumedUnnumbered,
        Self::ResumedBare,
        Self::SomeUnnumbered,
        Self::NumbersAsText,
        Self::TextFrames,
        Self::SomeTextFrames,
        Self::BinaryFrames,
        Self::FramePerMessage,
        Self::TwoInOne,
        Self::ManyInOne,
        Self::KeepAliveUpgrade,
        Self::Spaced,
        Self::Strangers,
    ];

    /// The payload as this gateway writes it.
    pub(crate) fn rewrite(self, payload: &[u8]) -> Cow<'_, [u8]> {
        let of = |what: &str| payload.windows(what.len()).take(16).any(|window| window == what.as_bytes());
        let concerns = match self {
            Self::HelloFloat | Self::HelloText | Self::HelloBare | Self::HelloUseless => {
                payload.windows(7).any(|window| window == br#""op":10"#)
            }
            Self::ResumedUnnumbered | Self::ResumedBare => of(r#""t":"RESUMED""#),
            Self::SomeUnnumbered | Self::NumbersAsText => of(r#""t":""#),
            Self::Spaced => true,
            Self::TextFrames
            | Self::SomeTextFrames
            | Self::BinaryFrames
            | Self::FramePerMessage
            | Self::TwoInOne
            | Self::ManyInOne
            | Self::KeepAliveUpgrade
            | Self::Strangers => false,
            _ => of(r#""t":"READY""#),
        };
        match serde_json::from_slice(payload) {
            Ok(value) if concerns => Cow::Owned(self.rewritten(value)),
            _ => Cow::Borrowed(payload),
        }
    }

    fn rewritten(self, mut payload: Value) -> Vec<u8> {
        let without = |value: &mut Value, key: &str| {
            value.as_object_mut().map(|object| object.remove(key));
        };
        match self {
            Self::HelloFloat => {
                let interval = payload["d"]["heartbeat_interval"].as_f64().unwrap_or_default();
                payload["d"]["heartbeat_interval"] = json!(interval + 0.5);
            }
            Self::HelloText => {
                payload["d"]["heartbeat_interval"] = payload["d"]["heartbeat_interval"].to_string().into();
            }
            Self::HelloBare => {
                let interval = payload["d"]["heartbeat_interval"].take();
                payload = json!({"op": 10, "d": {"heartbeat_interval": interval}});
            }
            Self::HelloUseless => payload["d"] = Value::Null,
            Self::ReadyUnnumbered | Self::ResumedUnnumbered => payload["s"] = Value::Null,
            Self::ReadyWithoutNumber => without(&mut payload, "s"),
            Self::ReadyWithoutUrl => without(&mut payload["d"], "resume_gateway_url"),
            Self::ReadyEmptyUrl => payload["d"]["resume_gateway_url"] = "".into(),
            Self::ReadyNoUrl => payload["d"]["resume_gateway_url"] = "gateway".into(),
            Self::ReadyHttpUrl => payload["d"]["resume_gateway_url"] = "http://resume.sim.invalid".into(),
            Self::ReadyWithoutShard => without(&mut payload["d"], "shard"),
            Self::ReadyOddShard => payload["d"]["shard"] = "0".into(),
            Self::ReadyOtherShard => payload["d"]["shard"] = json!([7, 16]),
            Self::ResumedBare => payload = json!({"op": 0, "t": "RESUMED", "d": null}),
            Self::SomeUnnumbered if payload["s"].as_u64().is_some_and(|sequence| sequence % 3 == 1) => {
                payload["s"] = Value::Null;
            }
            Self::NumbersAsText => payload["s"] = payload["s"].to_string().into(),
            _ => {}
        }
        let text = if self == Self::Spaced {
            serde_json::to_vec_pretty(&payload)
        } else {
            serde_json::to_vec(&payload)
        };
        text.unwrap_or_default()
    }

    /// The most dispatches in one message.
    pub(crate) fn in_one(self) -> usize {
        match self {
            Self::TwoInOne => 2,
            Self::ManyInOne => 100,
            _ => 1,
        }
    }

    /// The payloads that come before each payload.
    pub(crate) fn strangers(self) -> &'static [&'static str] {
        if self == Self::Strangers {
            &[
                r#"{"op":99,"d":{"op":0,"t":"READY"}}"#,
                r#"{"op":18446744073709551615,"d":null}"#,
                r#"{"t":null,"s":null,"op":5,"d":[1]}"#,
            ]
        } else {
            &[]
        }
    }
}
