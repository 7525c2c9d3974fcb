//! The bot's presence: status and activities (GW-192 to GW-200).

use serde::Serialize;
use url::{Host, Url};

use crate::PayloadSizeError;

/// The longest text of an activity, in characters. Clients do not show an activity with a longer one.
pub const MAX_ACTIVITY_CHARS: usize = 128;
/// The sites of streams: Discord shows only those on Twitch and YouTube (GW-195). Subdomains count too.
const STREAMING_SITES: [&str; 3] = ["twitch.tv", "youtube.com", "youtu.be"];

/// The bot's online status: one of the five values that Discord accepts (GW-193).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnlineStatus {
    /// Online.
    #[default]
    Online,
    /// Do not disturb.
    Dnd,
    /// Idle.
    Idle,
    /// Shown as offline.
    Invisible,
    /// Shown as offline, the same as `Invisible`; the name used in the presences of other users.
    Offline,
}

/// An activity of the bot. A bot can set name, state, type and URL, and nothing else (GW-194).
/// [`PresenceUpdate::new`](crate::PresenceUpdate::new) checks that each text has 1 to 128 characters and that
/// a stream is on a supported site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    name: String,
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Activity {
    fn new(kind: u8, name: impl Into<String>) -> Self {
        Self { name: name.into(), kind, state: None, url: None }
    }

    /// "Playing {name}".
    pub fn playing(name: impl Into<String>) -> Self {
        Self::new(0, name)
    }

    /// "Streaming {name}", with a URL of Twitch or YouTube; Discord shows no other (GW-195).
    pub fn streaming(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::new(1, name) }
    }

    /// "Listening to {name}".
    pub fn listening(name: impl Into<String>) -> Self {
        Self::new(2, name)
    }

    /// "Watching {name}".
    pub fn watching(name: impl Into<String>) -> Self {
        Self::new(3, name)
    }

    /// "Competing in {name}".
    pub fn competing(name: impl Into<String>) -> Self {
        Self::new(5, name)
    }

    /// A custom status, shown as only its text (GW-196).
    pub fn custom(text: impl Into<String>) -> Self {
        Self::new(4, "Custom Status").state(text)
    }

    /// An activity of a type by its number, for types that have no constructor here (GW-194). For a URL use
    /// [`streaming`](Self::streaming).
    pub fn of_type(kind: u8, name: impl Into<String>) -> Self {
        Self::new(kind, name)
    }

    /// Sets the second line of text. A custom status shows only this line.
    #[must_use]
    pub fn state(mut self, text: impl Into<String>) -> Self {
        self.state = Some(text.into());
        self
    }

    fn check(&self) -> Result<(), PresenceError> {
        let texts = [("name", Some(&self.name)), ("state", self.state.as_ref())];
        for (field, text) in texts {
            let Some(text) = text else { continue };
            match text.chars().count() {
                0 => return Err(PresenceError::Empty { field }),
                1..=MAX_ACTIVITY_CHARS => {}
                chars => return Err(PresenceError::TooLong { field, chars }),
            }
        }
        match &self.url {
            Some(url) if !is_stream(url) => Err(PresenceError::StreamingUrl { url: url.clone() }),
            _ => Ok(()),
        }
    }
}

fn is_stream(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let Some(Host::Domain(domain)) = url.host() else { return false };
    let belongs =
        |site: &&str| domain.strip_suffix(*site).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    matches!(url.scheme(), "http" | "https") && STREAMING_SITES.iter().any(belongs)
}

/// A presence that Discord would not show.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// A text of an activity is empty.
    #[error("the {field} of an activity is empty")]
    Empty {
        /// The name of the text: `name` or `state`.
        field: &'static str,
    },
    /// A text of an activity is longer than [`MAX_ACTIVITY_CHARS`].
    #[error("the {field} of an activity has {chars} characters, at most {MAX_ACTIVITY_CHARS} are shown")]
    TooLong {
        /// The name of the text: `name` or `state`.
        field: &'static str,
        /// The length of the text, in characters.
        chars: usize,
    },
    /// The stream is neither on Twitch nor on YouTube (GW-195).
    #[error("discord does not show the stream {url:?}: use a URL of twitch.tv or youtube.com")]
    StreamingUrl {
        /// The given URL.
        url: String,
    },
    /// The whole presence exceeds [`MAX_PRESENCE_BYTES`](crate::MAX_PRESENCE_BYTES).
    #[error(transparent)]
    TooLarge(#[from] PayloadSizeError),
}

/// The presence of the bot, sent in Identify and in presence updates. All four fields are always sent
/// (GW-192).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// Since when the bot is idle, in milliseconds of Unix time. `None` means not idle.
    #[serde(rename = "since")]
    idle_since_ms: Option<u64>,
    activities: Vec<Activity>,
    status: OnlineStatus,
    afk: bool,
}

impl Presence {
    /// Creates a presence without an activity.
    pub fn new(status: OnlineStatus) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds an activity.
    #[must_use]
    pub fn activity(mut self, activity: Activity) -> Self {
        self.activities.push(activity);
        self
    }

    /// Sets since when the bot is idle, in milliseconds of Unix time (GW-272).
    #[must_use]
    pub fn idle_since_ms(mut self, since: u64) -> Self {
        self.idle_since_ms = Some(since);
        self
    }

    /// Sets whether the bot is away from keyboard. Default: `false`.
    #[must_use]
    pub fn afk(mut self, afk: bool) -> Self {
        self.afk = afk;
        self
    }

    pub(crate) fn check(&self) -> Result<(), PresenceError> {
        self.activities.iter().try_for_each(Activity::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(presence: &Presence) -> String {
        serde_json::to_string(presence).unwrap()
    }

    #[test]
    fn gw_192_all_four_fields_are_sent() {
        let empty = r#"{"since":null,"activities":[],"status":"online","afk":false}"#;
        assert_eq!(json(&Presence::default()), empty);
        let idle = Presence::new(OnlineStatus::Idle)
            .idle_since_ms(1_790_000_000_000)
            .activity(Activity::watching("the logs"));
        assert_eq!(
            json(&idle),
            r#"{"since":1790000000000,"activities":[{"name":"the logs","type":3}],"status":"idle","afk":false}"#
        );
    }

    #[test]
    fn gw_193_every_status_has_its_name() {
        let all = [
            OnlineStatus::Online,
            OnlineStatus::Dnd,
            OnlineStatus::Idle,
            OnlineStatus::Invisible,
            OnlineStatus::Offline,
        ];
        let names = all.map(|status| serde_json::to_string(&status).unwrap());
        assert_eq!(names.join(" "), r#""online" "dnd" "idle" "invisible" "offline""#);
    }

    #[test]
    fn gw_195_196_each_activity_has_its_form() {
        let of = |activity| json(&Presence::default().activity(activity));
        assert!(of(Activity::playing("go")).contains(r#"{"name":"go","type":0}"#));
        assert!(
            of(Activity::streaming("s", "https://twitch.tv/x"))
                .contains(r#""type":1,"url":"https://twitch.tv/x""#)
        );
        assert!(of(Activity::listening("l")).contains(r#""type":2"#));
        assert!(of(Activity::competing("c")).contains(r#""type":5"#));
        assert!(of(Activity::of_type(6, "hangs")).contains(r#"{"name":"hangs","type":6}"#));
        assert!(
            of(Activity::custom("/help")).contains(r#"{"name":"Custom Status","type":4,"state":"/help"}"#)
        );
    }

    #[test]
    fn gw_194_195_what_would_not_be_shown_is_refused() {
        let check = |activity| crate::PresenceUpdate::new(Presence::default().activity(activity)).map(drop);
        assert_eq!(check(Activity::playing("ü".repeat(128))), Ok(()));
        let long = PresenceError::TooLong { field: "name", chars: 129 };
        assert_eq!(check(Activity::playing("ü".repeat(129))), Err(long));
        assert_eq!(check(Activity::listening("")), Err(PresenceError::Empty { field: "name" }));
        assert_eq!(check(Activity::custom("")), Err(PresenceError::Empty { field: "state" }));
        assert_eq!(check(Activity::playing("chess").state("move 12")), Ok(()));
        let stream = |url: &str| check(Activity::streaming("s", url));
        for url in ["https://twitch.tv/x", "https://www.youtube.com/watch?v=1", "http://youtu.be/1"] {
            assert_eq!(stream(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "twitch.tv/x",
            "https://nottwitch.tv/x",
            "ftp://twitch.tv/x",
            "https://example.com/twitch.tv",
        ] {
            assert_eq!(stream(url), Err(PresenceError::StreamingUrl { url: url.into() }), "{url}");
        }
    }
}
