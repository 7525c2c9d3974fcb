use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Attempt, Identify, Login, Resume, identify, resume};
use crate::config::SimConfig;
use crate::discord::Discord;
use crate::link::Link;
use crate::wire::{Mode, Query};

struct Bench {
    discord: Discord,
    begun: Instant,
    mode: Mode,
}

impl Bench {
    fn new() -> Self {
        let mode = Query::parse("v=10&encoding=json").unwrap().mode;
        Self { discord: Discord::new(SimConfig::default(), None, false), begun: Instant::now(), mode }
    }

    /// This many milliseconds after the beginning.
    fn at(&self, ms: u64) -> Instant {
        self.begun + Duration::from_millis(ms)
    }

    fn attempt<'a>(&self, link: &'a Arc<Link>, ms: u64) -> Attempt<'a> {
        Attempt { mode: self.mode, link, fault: None, at: self.at(ms) }
    }

    /// An Identify on a new connection.
    fn identify(&self, ms: u64) -> (Login, Arc<Link>) {
        let data = json!({
            "token": self.discord.config.token, "intents": 0, "shard": [0, 1],
            "properties": {"os": "", "browser": "", "device": ""},
        });
        let link = self.discord.new_link();
        let data = Identify::read(&data).unwrap();
        (identify(&self.discord, &data, self.attempt(&link, ms)), link)
    }

    /// A Resume on a new connection.
    fn resume(&self, session: &str, ms: u64) -> Login {
        let data = Resume { token: &self.discord.config.token, session, sequence: 1 };
        resume(&self.discord, &data, self.attempt(&self.discord.new_link(), ms))
    }

    fn violations(&self) -> Vec<&'static str> {
        self.discord.state().report().violations.iter().map(|violation| violation.rule).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn gw_170_identifies_that_are_read_in_another_order_are_judged_by_when_they_were_written() {
    let bench = Bench::new();
    for written in [5_000, 0, 10_000] {
        assert!(matches!(bench.identify(written).0, Login::Accepted { .. }), "{written}");
    }
    assert!(bench.violations().is_empty());
    // One that is too close to the first, which was read second; and one at the same time as another.
    for written in [4_999, 10_000] {
        assert!(matches!(bench.identify(written).0, Login::Refused), "{written}");
    }
    assert_eq!(bench.violations(), ["GW-170", "GW-170"]);
}

#[tokio::test(start_paused = true)]
async fn gw_098_a_resume_counts_as_late_only_when_it_was_written_after_the_close() {
    let bench = Bench::new();
    let (Login::Accepted { session }, link) = bench.identify(0) else { panic!("it identifies") };
    let close = Some((1000, bench.at(20)));
    bench.discord.state().sessions.disconnect(&session, &link, close, bench.at(20));
    assert!(matches!(bench.resume(&session, 19), Login::Refused), "the session is over");
    assert!(bench.violations().is_empty());
    assert!(matches!(bench.resume(&session, 20), Login::Refused));
    assert_eq!(bench.violations(), ["GW-098"]);
}
