//! What the bot shows of itself (section 11 of the rules).

use serde::Serialize;

/// The bot's status (GW-193).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Online.
    #[default]
    Online,
    /// Do not disturb.
    Dnd,
    /// Idle.
    Idle,
    /// Shown as offline.
    Invisible,
}

/// What the bot does. A bot can set name, state, type and URL, and nothing else (GW-194).
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

    /// Streaming; Discord shows it for Twitch and YouTube URLs only (GW-195).
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

    /// A custom status: the text alone (GW-196).
    pub fn custom(text: impl Into<String>) -> Self {
        Self { state: Some(text.into()), ..Self::new(4, "Custom Status") }
    }
}

/// A presence: what Identify and the presence command carry. All four fields are always sent (GW-192).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// Since when the bot is idle, in milliseconds of Unix time.
    #[serde(rename = "since")]
    idle_since_ms: Option<u64>,
    activities: Vec<Activity>,
    status: Status,
    afk: bool,
}

impl Presence {
    /// A presence without activity.
    pub fn new(status: Status) -> Self {
        Self { status, ..Self::default() }
    }

    /// Also does this.
    #[must_use]
    pub fn activity(mut self, activity: Activity) -> Self {
        self.activities.push(activity);
        self
    }

    /// Idle since this time, in milliseconds of Unix time (GW-272).
    #[must_use]
    pub fn idle_since_ms(mut self, since: u64) -> Self {
        self.idle_since_ms = Some(since);
        self
    }

    /// Whether the bot is away from keyboard.
    #[must_use]
    pub fn afk(mut self, afk: bool) -> Self {
        self.afk = afk;
        self
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
        let idle = Presence::new(Status::Idle)
            .idle_since_ms(1_790_000_000_000)
            .activity(Activity::watching("the logs"));
        assert_eq!(
            json(&idle),
            r#"{"since":1790000000000,"activities":[{"name":"the logs","type":3}],"status":"idle","afk":false}"#
        );
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
        assert!(
            of(Activity::custom("/help")).contains(r#"{"name":"Custom Status","type":4,"state":"/help"}"#)
        );
    }
}
