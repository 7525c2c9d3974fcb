//! Defaults: every number, its reason, and where it is changed.
//!
//! A test compares the numbers that the code has in public with those here.
//!
//! # The bot: [`Builder`]
//!
//! | setting | default | why, and what another value costs |
//! |---|---|---|
//! | [`Builder::api_url`] | [`DISCORD_API`] | Version 10. Another one is for a proxy or a simulator. |
//! | [`Builder::shards`] | what Discord recommends | A fixed number is for bots that are spread over processes. |
//! | [`Builder::shard_ids`] | all of them | A slice is for several processes, which share the pace of Identify. |
//! | [`Builder::gateway`] | asked at the start | An old answer is believed, and so may overdraw the budget. |
//! | [`Builder::gateway_check_every`] | 8 h | Three times in a period of the identify budget; bots grow over days. |
//! | [`Builder::presence`] | none: online | Goes into the first Identify. |
//! | [`Builder::presence_fn`] | none | Goes before [`Builder::presence`]; must return at once. |
//! | [`Builder::sessions`] | none | Those of another process; a wrong one is left out with a warning. |
//! | [`Builder::compression`] | [`Compression::ZlibStream`] | A fifth of the traffic, for 48 KB per shard. zstd is faster and takes 1 to 9 MB. |
//! | [`Builder::encoding`] | [`Encoding::Json`] | Events are JSON text above either way; ETF costs a translation. |
//! | [`Builder::large_threshold`] | 50 | Discord's own. Up to 250: more members per guild at the start, more memory there. |
//! | [`Builder::max_message_bytes`] | 67108864 | 64 MiB: READY and guilds of several MiB are real. A broken peer can cost twice as much per shard. |
//! | [`Builder::connects_per_second`] | 50 | 2,000 shards that fell together are back within 40 s. As many may open at once. |
//! | [`Builder::identify_reserve`] | 10 | At zero Discord resets the token, and others may spend some unseen. Half of `total` at most counts. |
//! | [`Builder::start_timeout`] | none | A bot that is started during an outage comes up after it; each failed attempt is a warning in the log. |
//! | [`Builder::shutdown_timeout`] | 10 s | 3 s are for closing, the rest for subscribers. |
//! | [`Builder::dialer`] | [`TcpDialer`] | TCP and TLS with the roots of `webpki-roots`; addresses are tried 250 ms apart. |
//! | [`Builder::reconnect`] | true | Another value is for a supervisor outside, which decides by itself. |
//! | [`Builder::wire_tap`] | none | For debugging: it runs for each payload, on the shard's own task. |
//! | [`Builder::wire_tap_with_content`] | none | Content of users, and the session's id in READY. |
//! | [`Builder::seed`] | random | A fixed one makes jitter repeatable, in tests. |
//! | [`Builder::identify_gate`] | none | One process needs none. |
//! | [`Builder::session_store`] | none | Where to keep sessions is the bot's to say: they are secrets. |
//! | [`Builder::max_session_age`] | 3600 s | Discord forgets them after minutes; a vain Resume costs seconds, and no Identify. |
//! | [`Builder::wall_clock`] | the system's | Processes have no other clock in common. |
//! | [`Builder::require_full_start`] | false | Some shards now are mostly better than all of them tomorrow. |
//! | [`Builder::library`] | `shardkeeper` | Discord shows it to nobody. |
//! | [`SubscriptionOptions::capacity`] | 1024 | Some seconds of a busy shard. An event that waits costs its JSON text. |
//! | [`SubscriptionOptions::overflow`] | [`Overflow::Wait`] | Nothing is lost unless somebody says so. |
//!
//! # Crashes: [`RestartPolicy`]
//!
//! | field | default | why |
//! |---|---|---|
//! | [`RestartPolicy::window`] | 600 s | Longer than five crashes with their waits take, short enough to forgive. |
//! | [`RestartPolicy::backoff`] | 1 s to 60 s | The first restart is at once: the shard wants to resume. |
//! | [`RestartPolicy::quarantine_after`] | 5 | What fails five times in a row fails a sixth time. |
//! | [`RestartPolicy::quarantine`] | 300 s | Soon enough to notice that the cause is gone, and each try may cost an Identify. |
//! | [`RestartPolicy::quarantine_cap`] | 3600 s | Waits double up to it: a shard that crashes at each start tries 31 times a day. |
//! | [`RestartPolicy::fleet_limit`] | 32 | More crashes than that at once are no accident of one shard. |
//! | [`RestartPolicy::fleet_window`] | 10 s | The window of the breaker, and half of the longest wait that it imposes. |
//!
//! # Time: [`Timings`]
//!
//! | field | default | why |
//! |---|---|---|
//! | [`Timings::connect`] | 10 s | A healthy connect takes well under a second; a lost SYN is repeated after 1, 3 and 7 s. |
//! | [`Timings::hello`] | 20 s | No limit is documented; clients use 5 to 60 s (GW-105). |
//! | [`Timings::ready`] | 120 s | In an outage Discord answers late, and each Identify costs (GW-109). |
//! | [`Timings::resumed`] | 60 s | Counted from the last sign of progress; a resume costs nothing. |
//! | [`Timings::replay`] | 600 s | Without RESUMED no command is sent. The next connection goes on where this one stood; time in which a subscriber keeps the shard from reading does not count. |
//! | [`Timings::keep_session`] | 900 s | Several times the "few minutes" that Discord keeps a session that nobody resumes (GW-103). Until then Discord's word decides: a vain Resume costs nothing, a new session an Identify and the events in between. |
//! | [`Timings::close`] | 3 s | A peer that does not answer a close is not worth more (GW-102). |
//! | [`Timings::invalid_session_min`] | 1 s | Discord asks for 1 to 5 s, by chance (GW-149). |
//! | [`Timings::invalid_session_max`] | 5 s | The same. |
//! | [`Timings::reconnect`] | 1 s to 60 s | After a first try at once: doubling, with a lower half (GW-153). |
//! | [`Timings::identify`] | 5 s to 600 s | After a first try at once: each Identify counts against the day's allowance. |
//! | [`Timings::stable`] | 60 s | A peer that accepts and closes at once must not be met without waiting (GW-154). |
//! | [`Timings::requeue`] | 30 s | A shard repeats its request, in case the queue did not get it. |
//! | [`Timings::command_window`] | 60 s | Discord's (GW-155). A smaller one breaks its rule. |
//! | [`Timings::command_margin`] | 250 ms | What is sent late may arrive early, by what was sent before: the windows are so much longer. |
//! | [`Timings::presence_window`] | 20 s | Discord's (GW-161). A smaller one breaks its rule. |
//! | [`Timings::voice_lifetime`] | 90 s | More than a whole window of the limit; later nobody waits for the bot to speak. |
//! | [`Timings::bulk_lifetime`] | 600 s | In a shard that is ready all that may wait passes by then. |
//! | [`Timings::identify_window`] | 5 s | Discord's (GW-170). A smaller one breaks its rule. |
//! | [`Timings::identify_margin`] | 250 ms | For delays on the way to Discord (GW-172). |
//!
//! A [`Backoff`] of `1 s to 60 s` reads: not at all, then between half of the whole and the whole, where the whole is 2 s, 4 s,
//! 8 s and so on up to 60 s. [`Timings::compressed`] makes all of it faster, for a simulator whose clock runs faster.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use shardkeeper::config::Timings;
//! use shardkeeper::{Intents, Shardkeeper};
//!
//! let mut timings = Timings::default();
//! timings.hello = Duration::from_secs(10);
//! let bot = Shardkeeper::builder("token", Intents::GUILDS).timings(timings).identify_reserve(50);
//! ```
//!
//! # Fixed by Discord
//!
//! | what | value | why |
//! |---|---|---|
//! | [`COMMANDS_PER_WINDOW`](shardkeeper_proto::COMMANDS_PER_WINDOW) | 120 | Payloads per connection in 60 s (GW-155). |
//! | [`PRESENCES_PER_WINDOW`](shardkeeper_proto::PRESENCES_PER_WINDOW) | 5 | Presence updates per connection in 20 s (GW-161). |
//! | [`MAX_PAYLOAD_BYTES`](shardkeeper_proto::MAX_PAYLOAD_BYTES) | 4096 | A longer command ends the connection with 4002 (GW-026). |
//! | [`MAX_NONCE_BYTES`](shardkeeper_proto::MAX_NONCE_BYTES) | 32 | Discord ignores a longer nonce (GW-214). |
//! | [`MAX_REQUESTED_MEMBERS`](shardkeeper_proto::MAX_REQUESTED_MEMBERS) | 100 | By ids or by a prefix, in one request (GW-211). |
//! | [`GATEWAY_VERSION`](shardkeeper_proto::GATEWAY_VERSION) | 10 | The URL always names it (GW-010). |
//! | all members of a guild | once in 30 s | For each guild and bot (GW-162). |
//! | a period of the identify budget | 24 h | 1000 Identifies per token, or more for large bots (GW-166, GW-167). |
//!
//! # Fixed by us
//!
//! | what | value | why |
//! |---|---|---|
//! | [`MAX_PRESENCE_BYTES`](shardkeeper_proto::MAX_PRESENCE_BYTES) | 3072 | A presence has to fit into Identify beside everything else. |
//! | [`MAX_ACTIVITY_CHARS`](shardkeeper_proto::MAX_ACTIVITY_CHARS) | 128 | Clients show no activity with a longer text. |
//! | [`CommandClass::capacity`], voice and bulk | 128 and 512 | More would not be sent before they expire. |
//! | [`LATENCIES`] | 16 | About eleven minutes of heartbeats. |
//! | room for heartbeats that Discord asks for | 3 per window | They come rarely; a fourth one waits. |
//! | room that bulk leaves for voice and presences | 10 per window | A flood must not hold them up for a minute. |
//! | guilds in one request for sounds | 160 | So many ids of 20 digits fit into 4096 bytes, in either encoding. |
//! | the spill of a shard | 64 | Reading has stopped with the first; the rest is for lifecycle changes and READY. |
//! | the spill while an answer is awaited | 4096 events, 32 MiB | The one who waits may be the one who does not read. |
//! | a subscription is reported as stalled | after 5 s | Longer than a hiccup of a database, far shorter than what costs a connection. |
//! | an end goes on without what only its asker could acknowledge | after 1 s, at looks every 250 ms | A task with other work beside is mostly done with it, and nobody takes the wait for a hang. |
//! | a watermark is reported as stuck | after 60 s, at looks every 15 s | Nearly every handler is done by then. |
//! | late announcements per subscription | 64 | Nobody who reads at all comes near. |
//! | controls that wait for a driver | 64 | It takes them before anything else. |
//! | chunks of members that wait | 64 | A full one makes the shard wait, not the memory grow. |
//! | a chunk of members | within 30 s | They come one after the other; a resume takes seconds. |
//! | messages in one turn of a driver | 64 | More gain nothing, fewer cost a poll of everything per message. |
//! | messages before a timer judges | 1024 | Among them may be the acknowledgement that it would miss. |
//! | unreadable payloads in a row | 5 | One may be an accident of a format; five are a broken stream. |
//! | payloads in one message | 64 | Discord sends one, proxies join a few; what one message brings is published without a pause. |
//! | READYs of another shard in a row | 2 | One may be a mix-up; each further try would cost an Identify. |
//! | the answer to a host name | serves 10 s | A mass reconnect asks a few times instead of once per shard; a host that moves is found at once. |
//! | the answer to the WebSocket request | 64 KiB in 512 reads | It has a few hundred bytes. |
//! | looks for silent shards | every 15 s | A report within minutes, for next to nothing. |
//! | what makes a shard silent | 30 dispatches due, none in 60 s | By chance alone it would be one in 10^13. |
//! | `GET /gateway/bot` | 15 s, 64 KiB | Its answer has about 200 bytes. |
//! | shards that it may advise | 65,536 | Enough for 65 million guilds at 1,000 each. |
//! | `max_concurrency` that is believed | 4,096 | Discord's largest known is 16; anything else counts as 1, which is right for all. |
//! | the period of the identify budget that is believed | 7 days | Discord's is one. |
//! | looks for sessions to store | every 250 ms | What a killed process repeats at most, beside what was not acknowledged. |
//! | a save that is told as slow, and given up | after 10 s, 60 s | A disk takes milliseconds; a connection that died unnoticed never answers. |
//! | waits after a save that failed | 1 s to 60 s | A full disk is no reason for a busy loop. |
//! | a stored session that does not get on is stored anew | after a quarter of [`Builder::max_session_age`] | Or a quiet shard would look too old to the next process. |
//! | a jump of the wall clock | 1 s | Far less than the 5 s between two Identify. |
//! | loading what is stored | 10 s, tried every 500 ms | Without it each shard costs an Identify. |
//! | asking it again after a failed check | 60 s and [`Timings::reconnect`] | Running shards do without. |
//! | a wait that a refused WebSocket asks for (`Retry-After`) | 5 min at most | Discord forgets a session by then anyway; whoever asks for more is asked again. |
//! | Resumes that are ended at once, before the other URL is tried | 5 in a row | With their waits half a minute: a shorter disturbance concerns both hosts, and the bootstrap URL is the worse one (GW-132). |
//! | asking it again for shards in trouble | once in 60 s at most | An outage lasts minutes. |
//! | a wait that an API asks for | a day at most | Whatever asks for more is no rate limit. |
//! | opening a connection, as the transport sees it | nine tenths of [`Timings::connect`] | It can say whom it waited for; the machine's deadline cannot. |
//! | bytes that wait to be written | 512 KiB | A little more than a minute of full commands. |
//! | window of a zstd stream | 8 MiB at most | What a peer can make a connection hold. |
//! | a span of time in [`Timings`], [`RestartPolicy`], [`Builder::shutdown_timeout`], [`Builder::max_session_age`] | a year at most ([`LONGEST_WAIT`]) | [`Builder::build`] refuses more: added to a time it would overflow. |
//! | [`Builder::shards`] | 65,536 at most | More guilds than any bot has, and each shard takes memory from the start on. |
//! | [`Builder::max_message_bytes`] | 4 KiB to 2 GiB | READY has to fit; a length has to fit into 31 bits. |
//! | [`SubscriptionOptions::capacity`] | 1,048,576 at most | The places are made at once, about 100 bytes each. |
//! | warnings of a shard that cannot connect | 3 at once, then 1 per minute | The others are at level debug: an outage says the same each time. |
//! | a token | 512 bytes at most | Identify has to hold it beside the largest presence. |
//! | our close codes | 1000 to stop, 4900 to 4905 else | All but 1000 keep the session; each names its reason. |
//!
//! ---
//!
//! Before: [Shards](super::_05_shards). Next: [Decisions](super::_07_decisions).

#[cfg(doc)]
use crate::{actor::*, command::*, config::*, dispatch::*, error::*, gate::*, status::*, *};

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use shardkeeper_proto as proto;

    use crate::config::{RestartPolicy, Timings};
    use crate::status::LATENCIES;
    use crate::{Intents, Shardkeeper, SubscriptionOptions};

    /// A struct's fields as the tables have them, from `Name { wait: 10s, waits: Backoff { base: 1s, cap: 60s } }`.
    fn rows(defaults: &dyn Debug) -> Vec<(String, String)> {
        let text = format!("{defaults:?}").replace("Backoff { base: ", "").replace(", cap: ", " to ");
        let (name, fields) = text.split_once(" { ").expect("it is a struct");
        let row = |field: &str| {
            let (field, value) = field.split_once(": ").expect("it has a value");
            let mut spaced = String::new();
            for letter in value.trim_end_matches(" }").chars() {
                if letter.is_alphabetic() && spaced.ends_with(|before: char| before.is_ascii_digit()) {
                    spaced.push(' ');
                }
                spaced.push(letter);
            }
            (format!("`{name}::{field}`"), spaced)
        };
        fields.split(", ").map(row).collect()
    }

    #[test]
    fn the_tables_have_the_numbers_of_the_code() {
        let config = Shardkeeper::builder("T", Intents::empty()).build().expect("the defaults work");
        let mut expected: Vec<(String, String)> = [
            ("`Builder::large_threshold`", config.config.settings.large_threshold.to_string()),
            ("`Builder::max_message_bytes`", config.config.settings.max_message_bytes.to_string()),
            ("`Builder::connects_per_second`", config.config.settings.connects_per_second.to_string()),
            ("`Builder::identify_reserve`", config.config.settings.identify_reserve.to_string()),
            (
                "`Builder::gateway_check_every`",
                format!("{} h", config.config.settings.gateway_check_every.as_secs() / 3600),
            ),
            ("`Builder::max_session_age`", format!("{} s", config.config.settings.max_session_age.as_secs())),
            (
                "`Builder::start_timeout`",
                config.config.settings.start_timeout.map_or("none", |_| "some").to_owned(),
            ),
            (
                "`Builder::shutdown_timeout`",
                format!("{} s", config.config.settings.shutdown_timeout.as_secs()),
            ),
            ("`SubscriptionOptions::capacity`", SubscriptionOptions::default().capacity.to_string()),
            ("`COMMANDS_PER_WINDOW`", proto::COMMANDS_PER_WINDOW.to_string()),
            ("`PRESENCES_PER_WINDOW`", proto::PRESENCES_PER_WINDOW.to_string()),
            ("`MAX_PAYLOAD_BYTES`", proto::MAX_PAYLOAD_BYTES.to_string()),
            ("`MAX_NONCE_BYTES`", proto::MAX_NONCE_BYTES.to_string()),
            ("`MAX_REQUESTED_MEMBERS`", proto::MAX_REQUESTED_MEMBERS.to_string()),
            ("`GATEWAY_VERSION`", proto::GATEWAY_VERSION.to_string()),
            ("`MAX_PRESENCE_BYTES`", proto::MAX_PRESENCE_BYTES.to_string()),
            ("`MAX_ACTIVITY_CHARS`", proto::MAX_ACTIVITY_CHARS.to_string()),
            ("`LATENCIES`", LATENCIES.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        expected.extend(rows(&RestartPolicy::default()).into_iter().chain(rows(&Timings::default())));
        let manual = include_str!("_06_defaults.rs");
        for (name, value) in expected {
            let row = manual.lines().find(|line| line.starts_with(&format!("//! | [{name}]")));
            let row = row.unwrap_or_else(|| panic!("{name} is not in a table"));
            assert_eq!(row.split(" | ").nth(2), Some(value.as_str()), "{name}");
        }
    }
}
