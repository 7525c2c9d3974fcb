//! The events that happened in the guilds, and what the client's subscribers observed of them over all
//! sessions.
//!
//! Sessions of several layouts receive the same event, so that the ledger, which counts per session, cannot
//! tell whether the client delivered it once. Here an event has a serial number, which its `_trace` has in each
//! session. Events with repeating content have no trace: they are recognised by guild, name and content, and
//! their observations are counted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::Traces;
use crate::report::{GuildDelivery, LostEvent, WorldDelivery};

/// How many lost events a verdict lists.
const MAX_LISTED: usize = 100;
const MARK: &[u8] = b"\"world:";

/// How an event is recognised by the one who observes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// By session and number: the trace of the ledger.
    Session,
    /// By its serial number.
    Serial(u64),
    /// By its content.
    Content,
}

/// The record of events, newest last, and the counts per guild id; `None` stands for events outside of guilds.
#[derive(Debug)]
pub(crate) struct History {
    traces: Traces,
    limit: usize,
    /// The serial number of the first recorded event.
    first: u64,
    events: VecDeque<Happened>,
    /// The events with repeating content that were not observed yet, by guild and content.
    repeats: HashMap<(Option<u64>, u64), VecDeque<u64>>,
    guilds: BTreeMap<Option<u64>, Counts>,
}

#[derive(Debug)]
struct Happened {
    guild: Option<u64>,
    event: Box<str>,
    /// The hash of name and data, for an event with repeating content.
    content: Option<u64>,
    at: Instant,
    /// The numbers of the sessions that received the event.
    sessions: Vec<u64>,
    observed: u64,
    /// How often the event was sent again on purpose, over all sessions.
    copies: u64,
    /// Whether a fault sent the event after a later one.
    late: bool,
}

#[derive(Debug, Default)]
struct Counts {
    happened: u64,
    observed: u64,
    doubled: u64,
    doubled_marked: u64,
    out_of_order: u64,
    unjudged: u64,
    /// The highest serial number that was observed, of events with a serial number in their trace.
    last: u64,
}

impl History {
    pub(super) fn new(traces: Traces, limit: usize) -> Self {
        Self {
            traces,
            limit: limit.max(1),
            first: 1,
            events: VecDeque::new(),
            repeats: HashMap::new(),
            guilds: BTreeMap::new(),
        }
    }

    /// Whether events of this name have repeating content.
    pub(crate) fn repeats(&self, event: &str) -> bool {
        matches!(&self.traces, Traces::World { repeating } if repeating.iter().any(|name| name == event))
    }

    /// Records an event that happens now. [`Self::received`] and [`Self::end`] follow.
    pub(super) fn begin(&mut self, event: &str, guild: Option<u64>, data: &Value, at: Instant) -> Trace {
        if matches!(self.traces, Traces::Session) {
            return Trace::Session;
        }
        let content = self.repeats(event).then(|| content(event, data.clone()));
        let serial = self.first + self.events.len() as u64;
        self.events.push_back(Happened {
            guild,
            event: event.into(),
            content,
            at,
            sessions: Vec::new(),
            observed: 0,
            copies: 0,
            late: false,
        });
        if content.is_some() { Trace::Content } else { Trace::Serial(serial) }
    }

    /// Notes that a session receives the event that has begun.
    pub(super) fn received(&mut self, trace: Trace, session: u64) {
        if trace != Trace::Session
            && let Some(event) = self.events.back_mut()
        {
            event.sessions.push(session);
        }
    }

    /// Ends the event that has begun. An event that no session received is not recorded.
    pub(super) fn end(&mut self, trace: Trace) {
        if trace == Trace::Session {
            return;
        }
        let Some(event) = self.events.back() else { return };
        if event.sessions.is_empty() {
            self.events.pop_back();
            return;
        }
        let serial = self.first + self.events.len() as u64 - 1;
        self.guilds.entry(event.guild).or_default().happened += 1;
        if let Some(content) = event.content {
            self.repeats.entry((event.guild, content)).or_default().push_back(serial);
        }
        if self.events.len() > self.limit {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let Some(oldest) = self.events.pop_front() else { return };
        if oldest.observed == 0 {
            self.guilds.entry(oldest.guild).or_default().unjudged += 1;
            if let Some(content) = oldest.content {
                self.take_repeat((oldest.guild, content));
            }
        }
        self.first += 1;
    }

    /// The oldest event with this content that was not observed.
    fn take_repeat(&mut self, key: (Option<u64>, u64)) -> Option<u64> {
        let waiting = self.repeats.get_mut(&key)?;
        let serial = waiting.pop_front();
        if waiting.is_empty() {
            self.repeats.remove(&key);
        }
        serial
    }

    fn get_mut(&mut self, serial: u64) -> Option<&mut Happened> {
        let place = serial.checked_sub(self.first)?;
        self.events.get_mut(usize::try_from(place).ok()?)
    }

    /// Notes that a fault sends this dispatch once more in a session. Returns how it is recognised.
    pub(super) fn copied(&mut self, event: &str, data: &Value, session: u64, at: Instant) -> Trace {
        let text = data["_trace"][0].as_str().and_then(|trace| trace.strip_prefix("world:"));
        if let Some(serial) = text.and_then(|serial| serial.parse().ok()) {
            if let Some(event) = self.get_mut(serial) {
                event.copies += 1;
            }
            return Trace::Serial(serial);
        }
        if !self.repeats(event) {
            return Trace::Session;
        }
        let trace = self.begin(event, guild_of(data), data, at);
        self.received(trace, session);
        self.end(trace);
        trace
    }

    /// Notes that a fault sends this dispatch after a later one.
    pub(crate) fn sent_late(&mut self, payload: &[u8]) {
        if let Some(event) = serial(payload).and_then(|serial| self.get_mut(serial)) {
            event.late = true;
        }
    }

    /// Notes that a subscriber received an event with this data. `marked` means that the client said that the
    /// event may be a repetition.
    pub(crate) fn observe(&mut self, event: &str, data: &[u8], marked: bool) {
        if let Some(serial) = serial(data) {
            return self.observe_serial(serial, marked);
        }
        if !self.repeats(event) {
            return;
        }
        let Ok(data) = serde_json::from_slice::<Value>(data) else { return };
        let guild = guild_of(&data);
        let Some(serial) = self.take_repeat((guild, content(event, data))) else {
            return self.doubled(guild, marked);
        };
        let Some(event) = self.get_mut(serial) else { return };
        event.observed = 1;
        let late = event.late;
        let counts = self.guilds.entry(guild).or_default();
        counts.observed += 1;
        counts.out_of_order += u64::from(serial < counts.last && !late);
    }

    fn observe_serial(&mut self, serial: u64, marked: bool) {
        let Some(event) = self.get_mut(serial) else { return };
        event.observed += 1;
        let (guild, observed, copies, late) = (event.guild, event.observed, event.copies, event.late);
        if observed > 1 + copies {
            return self.doubled(guild, marked);
        }
        if observed > 1 {
            return;
        }
        let counts = self.guilds.entry(guild).or_default();
        counts.observed += 1;
        counts.out_of_order += u64::from(serial < counts.last && !late);
        counts.last = counts.last.max(serial);
    }

    fn doubled(&mut self, guild: Option<u64>, marked: bool) {
        let counts = self.guilds.entry(guild).or_default();
        counts.doubled += 1;
        counts.doubled_marked += u64::from(marked);
    }

    /// Whether the record is on.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self.traces, Traces::Session)
    }

    /// The verdict up to now. `owes` tells whether a client can receive, or could have received, the events
    /// that a session with this number got at this time.
    pub(super) fn verdict(&self, owes: impl Fn(u64, Instant) -> bool) -> WorldDelivery {
        let mut all = WorldDelivery::default();
        let mut lost: BTreeMap<Option<u64>, u64> = BTreeMap::new();
        for (event, serial) in self.events.iter().zip(self.first..) {
            if event.observed > 0 {
                continue;
            }
            if !event.sessions.iter().any(|session| owes(*session, event.at)) {
                all.excused += 1;
                continue;
            }
            *lost.entry(event.guild).or_default() += 1;
            if all.lost_events.len() < MAX_LISTED {
                let (sessions, event_name) = (event.sessions.clone(), event.event.to_string());
                all.lost_events.push(LostEvent {
                    serial,
                    guild_id: event.guild,
                    event: event_name,
                    sessions,
                });
            }
        }
        for (guild, counts) in &self.guilds {
            let guild = GuildDelivery {
                guild_id: *guild,
                happened: counts.happened,
                observed: counts.observed,
                lost: lost.get(guild).copied().unwrap_or_default(),
                doubled: counts.doubled,
                doubled_marked: counts.doubled_marked,
                out_of_order: counts.out_of_order,
                unjudged: counts.unjudged,
            };
            all.add(guild);
        }
        all
    }
}

/// Gives the data the trace of its event.
pub(super) fn write(data: &mut Value, serial: u64) {
    data["_trace"] = json!([format!("world:{serial}")]);
}

/// Finds the serial number in a dispatch.
fn serial(data: &[u8]) -> Option<u64> {
    let start = data.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let end = start + data[start..].iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&data[start..end]).ok()?.parse().ok()
}

fn guild_of(data: &Value) -> Option<u64> {
    data["guild_id"].as_str()?.parse().ok()
}

/// The hash of an event's name and content, whatever the order of its keys.
fn content(event: &str, mut data: Value) -> u64 {
    data.sort_all_objects();
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    data.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(limit: usize) -> History {
        History::new(Traces::World { repeating: vec!["PRESENCE_UPDATE".into()] }, limit)
    }

    /// Lets an event happen in guild 7 for one session, and returns its data as the session has it.
    fn happen(history: &mut History, event: &str, session: u64) -> Vec<u8> {
        let mut data = json!({"guild_id": "7", "b": 1});
        let trace = history.begin(event, Some(7), &data, Instant::now());
        history.received(trace, session);
        history.end(trace);
        if let Trace::Serial(serial) = trace {
            write(&mut data, serial);
        }
        data.to_string().into_bytes()
    }

    #[tokio::test(start_paused = true)]
    async fn lost_doubled_and_moved_events_are_told_apart_over_all_sessions() {
        let mut history = history(100);
        let sent: Vec<_> = (0..5).map(|_| happen(&mut history, "MESSAGE_CREATE", 1)).collect();
        for (place, marked) in [(0, false), (2, false), (1, false), (2, true), (2, false)] {
            history.observe("MESSAGE_CREATE", &sent[place], marked);
        }
        let verdict = history.verdict(|_, _| true);
        assert_eq!((verdict.happened, verdict.observed, verdict.lost), (5, 3, 2));
        assert_eq!((verdict.doubled, verdict.doubled_marked, verdict.out_of_order), (2, 1, 1));
        assert_eq!(verdict.lost_events.iter().map(|event| event.serial).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(verdict.guilds.len(), 1);
        let verdict = history.verdict(|_, _| false);
        assert_eq!((verdict.lost, verdict.excused), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn repeating_content_is_counted_and_not_confused() {
        let mut history = history(100);
        let first = happen(&mut history, "PRESENCE_UPDATE", 1);
        let between = happen(&mut history, "MESSAGE_CREATE", 1);
        let second = happen(&mut history, "PRESENCE_UPDATE", 1);
        assert_eq!(first, second, "the same text twice");
        history.observe("PRESENCE_UPDATE", &first, false);
        history.observe("MESSAGE_CREATE", &between, false);
        assert_eq!(history.verdict(|_, _| true).lost, 1);
        // The order of the keys does not matter.
        history.observe("PRESENCE_UPDATE", br#"{"guild_id":"7","b":1}"#, false);
        let verdict = history.verdict(|_, _| true);
        assert_eq!((verdict.lost, verdict.doubled, verdict.out_of_order), (0, 0, 0));
        history.observe("PRESENCE_UPDATE", &second, true);
        let verdict = history.verdict(|_, _| true);
        assert_eq!((verdict.doubled, verdict.doubled_marked), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_text_that_comes_after_what_followed_it_is_out_of_order() {
        let mut history = history(100);
        let presence = happen(&mut history, "PRESENCE_UPDATE", 1);
        let message = happen(&mut history, "MESSAGE_CREATE", 1);
        history.observe("MESSAGE_CREATE", &message, false);
        history.observe("PRESENCE_UPDATE", &presence, false);
        assert_eq!(history.verdict(|_, _| true).out_of_order, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_record_is_bounded_and_says_what_it_forgot() {
        let mut history = history(3);
        for _ in 0..10 {
            happen(&mut history, "MESSAGE_CREATE", 1);
            happen(&mut history, "PRESENCE_UPDATE", 1);
        }
        assert!(history.events.len() == 3 && history.repeats.values().map(VecDeque::len).sum::<usize>() <= 2);
        let verdict = history.verdict(|_, _| true);
        assert_eq!((verdict.happened, verdict.unjudged, verdict.lost), (20, 17, 3));
    }
}
