//! Defaults: every number, its reason, and where to change it.
//!
//! A test compares these numbers with the code.
//!
//! # The bot: [`Builder`]
//!
//! | setting | default | why, and what another value costs |
//! |---|---|---|
//! | [`Builder::api_url`] | [`DISCORD_API`] | Version 10. Change it for a proxy or a simulator. |
//! | [`Builder::shards`] | what Discord recommends | Set a fixed number for a bot that is spread over processes. Sessions that can be resumed come first. |
//! | [`Builder::shard_ids`] | all of them | Set a part for each of several processes, which share the pace of Identify. |
//! | [`Builder::gateway`] | asked at the start | An answer given here is believed; an old one may overdraw the budget. |
//! | [`Builder::gateway_check_every`] | 8 h | Three requests in a period of the identify budget; bots grow over days. |
//! | [`Builder::presence`] | none: online | Goes into the first Identify. |
//! | [`Builder::presence_fn`] | none | Takes precedence over [`Builder::presence`]; must return at once. |
//! | [`Builder::sessions`] | none | Sessions of another process; one that does not fit is left out with a warning. |
//! | [`Builder::compression`] | [`Compression::ZlibStream`] | A fifth of the traffic, for 48 KB per shard. zstd is faster and takes 1 to 9 MB. |
//! | [`Builder::encoding`] | [`Encoding::Json`] | Subscribers get JSON text with either encoding; ETF costs a translation. |
//! | [`Builder::large_threshold`] | 50 | Discord's own default. Up to 250: more members per guild at the start, and more memory. |
//! | [`Builder::max_message_bytes`] | 67108864 | 64 MiB: READY and guilds of several MiB exist. A hostile peer can cost twice as much per shard. |
//! | [`Builder::connects_per_second`] | 50 | 2,000 shards that disconnect together are back within 40 s. Up to this many may also open at once. |
//! | [`Builder::identify_reserve`] | 10 | At zero Discord resets the token, and other processes may use some unseen. The reserve is at most half of `total`. |
//! | [`Builder::start_timeout`] | none | A bot that starts during an outage comes up after it; each failed attempt is a warning in the log. |
//! | [`Builder::shutdown_timeout`] | 10 s | 3 s for closing, the rest for subscribers. |
//! | [`Builder::dialer`] | [`TcpDialer`] | TCP and TLS with the roots of `webpki-roots`; addresses are tried 250 ms apart. |
//! | [`Builder::reconnect`] | true | Set it to false for a supervisor outside of the process, which decides by itself. |
//! | [`Builder::wire_tap`] | none | For debugging: it runs for each payload, in the shard's own task. |
//! | [`Builder::wire_tap_with_content`] | none | Shows content of users, and the session's id in READY. |
//! | [`Builder::seed`] | random | Set a fixed one to make jitter repeatable in tests. |
//! | [`Builder::identify_gate`] | none | A single process does not need a gate. |
//! | [`Builder::session_store`] | none | The bot decides where to keep sessions, since they are secrets. |
//! | [`Builder::max_session_age`] | 3600 s | Discord forgets sessions after minutes; a failed Resume costs seconds, and no Identify. |
//! | [`Builder::wall_clock`] | the system's | Successive processes share no other clock. |
//! | [`Builder::require_full_start`] | false | Most bots prefer some shards now over all of them tomorrow. |
//! | [`Builder::library`] | `shardkeeper` | Discord does not show it to users. |
//! | [`SubscriptionOptions::capacity`] | 1024 | Some seconds of a busy shard. A waiting event takes the memory of its JSON text. |
//! | [`SubscriptionOptions::overflow`] | [`Overflow::Wait`] | No event is lost unless the bot asks for it. |
//!
//! # Crashes: [`RestartPolicy`]
//!
//! | field | default | why |
//! |---|---|---|
//! | [`RestartPolicy::window`] | 600 s | Longer than five crashes with their waits take, and short enough to recover from old ones. |
//! | [`RestartPolicy::backoff`] | 1 s to 60 s | The first restart does not wait: the shard should resume while Discord keeps its session. |
//! | [`RestartPolicy::quarantine_after`] | 5 | A shard that crashed five times in a row will crash a sixth time. |
//! | [`RestartPolicy::quarantine`] | 300 s | Short enough to notice that the cause is gone, long enough since each attempt may cost an Identify. |
//! | [`RestartPolicy::quarantine_cap`] | 3600 s | Waits double up to it: a shard that crashes at each start makes 31 attempts a day. |
//! | [`RestartPolicy::fleet_limit`] | 32 | So many crashes at once have a common cause. |
//! | [`RestartPolicy::fleet_window`] | 10 s | The window of the breaker, and half of the longest wait that it adds. |
//!
//! # Time: [`Timings`]
//!
//! | field | default | why |
//! |---|---|---|
//! | [`Timings::connect`] | 10 s | A healthy connect takes well under a second; a lost SYN is repeated after 1, 3 and 7 s. |
//! | [`Timings::hello`] | 20 s | Discord documents no limit; clients use 5 to 60 s (GW-105). |
//! | [`Timings::ready`] | 120 s | In an outage Discord answers late, and each Identify counts against the budget (GW-109). |
//! | [`Timings::resumed`] | 60 s | Counted from the last sign of progress; a resume costs nothing. |
//! | [`Timings::replay`] | 600 s | Before RESUMED no command is sent. The next connection continues where this one stopped; time in which a subscriber keeps the shard from reading does not count. |
//! | [`Timings::keep_session`] | 900 s | Several times the "few minutes" for which Discord keeps a session that nobody resumes (GW-103). Until then only Discord ends the session: a failed Resume costs nothing, a new session costs an Identify and the events in between. |
//! | [`Timings::close`] | 3 s | Waiting longer for a peer that does not answer a close gains nothing (GW-102: clients wait only a few seconds for it). |
//! | [`Timings::invalid_session_min`] | 1 s | Discord asks for a random wait of 1 to 5 s (GW-149). |
//! | [`Timings::invalid_session_max`] | 5 s | The same. |
//! | [`Timings::reconnect`] | 1 s to 60 s | The first attempt does not wait; then waits double, and at least half of each is kept (GW-153). |
//! | [`Timings::identify`] | 5 s to 600 s | The first attempt does not wait; each Identify counts against the day's budget. |
//! | [`Timings::stable`] | 60 s | A peer that accepts and closes at once must not be contacted again without a wait (GW-154). |
//! | [`Timings::requeue`] | 30 s | A shard repeats its request, in case the identify queue did not get it. |
//! | [`Timings::command_window`] | 60 s | Discord's: 120 payloads in 60 s (GW-155). A smaller value breaks its rule. |
//! | [`Timings::command_margin`] | 250 ms | Added to both windows: two payloads can arrive closer together than they were sent. |
//! | [`Timings::presence_window`] | 20 s | Discord's: 5 presences in 20 s (GW-161). A smaller value breaks its rule. |
//! | [`Timings::voice_lifetime`] | 90 s | More than a whole window of the limit; later nobody waits for the bot in the channel any more. |
//! | [`Timings::bulk_lifetime`] | 600 s | A shard that is ready sends a full queue within this time. |
//! | [`Timings::identify_window`] | 5 s | Discord's: one Identify per key and 5 s (GW-170). A smaller value breaks its rule. |
//! | [`Timings::identify_margin`] | 250 ms | For delays on the way to Discord (GW-172). |
//!
//! A [`Backoff`] of `1 s to 60 s` means: no wait at first, then a random wait between half of a limit and the
//! limit, where the limit is 2 s, 4 s, 8 s and so on up to 60 s. [`Timings::compressed`] shortens all waits,
//! for a simulator whose clock runs faster.
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
//! | [`MAX_PAYLOAD_BYTES`](shardkeeper_proto::MAX_PAYLOAD_BYTES) | 4096 | Discord closes the connection with 4002 after a longer command (GW-026). |
//! | [`MAX_NONCE_BYTES`](shardkeeper_proto::MAX_NONCE_BYTES) | 32 | Discord ignores a longer nonce (GW-214). |
//! | [`MAX_REQUESTED_MEMBERS`](shardkeeper_proto::MAX_REQUESTED_MEMBERS) | 100 | In one request, by ids or by a prefix (GW-211). |
//! | [`GATEWAY_VERSION`](shardkeeper_proto::GATEWAY_VERSION) | 10 | The URL always names it (GW-010). |
//! | all members of a guild | once in 30 s | For each guild and bot (GW-162). |
//! | a period of the identify budget | 24 h | 1000 Identifies per token, or more for large bots (GW-166, GW-167). |
//!
//! # Fixed by us
//!
//! | what | value | why |
//! |---|---|---|
//! | [`MAX_PRESENCE_BYTES`](shardkeeper_proto::MAX_PRESENCE_BYTES) | 3072 | A presence has to fit into Identify together with everything else. |
//! | [`MAX_ACTIVITY_CHARS`](shardkeeper_proto::MAX_ACTIVITY_CHARS) | 128 | Clients show no activity with a longer text. |
//! | [`CommandClass::capacity`], voice and bulk | 128 and 512 | More commands would expire before they are sent. |
//! | [`LATENCIES`] | 16 | About eleven minutes of heartbeats. |
//! | room for heartbeats that Discord asks for | 3 per window | Discord asks rarely; a fourth one waits. |
//! | room that bulk leaves for voice and presences | 10 per window | A flood of bulk commands must not delay them for a minute. |
//! | guilds in one request for sounds | 160 | This many ids of 20 digits fit into 4096 bytes, in either encoding. |
//! | the spill of a shard | 64 | Reading has stopped with the first entry; the others are for lifecycle changes and READY. |
//! | the spill while an answer is awaited | 4096 events, 32 MiB | The task that waits for the answer may be the one that should read. |
//! | a subscription is reported as stalled | after 5 s | Longer than a short stall of a database, and far shorter than a stall that costs a connection. |
//! | an end goes on without deliveries that only its caller holds | after 1 s, checked every 250 ms | Other work of that task is usually done by then, and the wait does not look like a hang. |
//! | a watermark is reported as stuck | after 60 s, checked every 15 s | Nearly every handler is done by then. |
//! | late announcements per subscription | 64 | A subscriber that reads at all never reaches it. |
//! | events that a reshard group holds | 65,536 events, 64 MiB | Most leave within a round trip; this is minutes of a busy group. |
//! | fingerprints of a reshard group | 2,097,152, 16,384 per guild | 32 MiB: some minutes of a hundred thousand guilds. |
//! | comparing after a cut-over | for 60 s at most | By then whatever the new side lagged behind has come. |
//! | a new shard counts as loaded | 15 s after the last guild | Common practice; a guild in an outage may never come (GW-254). |
//! | a reshard's question to a shard | repeated every 5 s | The shard may have been down; a heartbeat costs little of the rate limit. |
//! | rest between the two halves of a reshard's comparison | 1 s | Discord writes events and acknowledgements in different processes. |
//! | a reshard's question to shards that have stopped reading | given up after 10 s | Nothing is lost without the answer, but more may be marked. |
//! | controls that wait for a driver | 64 | The driver takes controls before anything else. |
//! | chunks of members that wait | 64 | A full buffer makes the shard wait, so memory does not grow. |
//! | a chunk of members | within 30 s | Chunks arrive one after the other; a resume takes seconds. |
//! | messages that a driver takes in one go | 64 | More gain nothing, fewer cost a poll of everything per message. |
//! | messages before a deadline counts as missed | 1024 | The missing acknowledgement may be among them. |
//! | unreadable payloads in a row | 5 | One may be a quirk of the format; five are a broken stream. |
//! | payloads in one message | 64 | Discord sends one, proxies join a few; the payloads of one message are published without a pause. |
//! | READYs of another shard in a row | 2 | One may be an accident; each further attempt would cost an Identify. |
//! | the answer to a host name | used for 10 s | A mass reconnect asks a few times instead of once per shard; a host that moves is found soon. |
//! | the answer to the WebSocket request | 64 KiB in 512 reads | A usual answer has a few hundred bytes. |
//! | checks for silent shards | every 15 s | A report within minutes, at almost no cost. |
//! | what makes a shard silent | 30 dispatches due, no dispatch in 60 s | The probability that this happens by chance is 1 in 10^13. |
//! | `GET /gateway/bot` | 15 s, 64 KiB | A usual answer has about 200 bytes. |
//! | shards that it may advise | 65,536 | Enough for 65 million guilds at 1,000 each. |
//! | `max_concurrency` that is believed | 4,096 | Discord's largest known is 16; anything else counts as 1, which is right for all. |
//! | the period of the identify budget that is believed | 7 days | Discord's is one day. |
//! | checks for sessions to store | every 250 ms | A killed process repeats at most this time, in addition to events that were not acknowledged. |
//! | a save is reported as slow, and given up | after 10 s, 60 s | A disk takes milliseconds; a connection that died without notice never answers. |
//! | waits after a save that failed | 1 s to 60 s | A full disk must not cause a busy loop. |
//! | an unchanged session is stored again | after a quarter of [`Builder::max_session_age`] | Otherwise the session of a quiet shard would look too old to the next process. |
//! | a jump of the wall clock | 1 s | Far less than the 5 s between two Identify. |
//! | loading stored sessions | 10 s, tried every 500 ms | Without them each shard costs an Identify. |
//! | asking `GET /gateway/bot` again after a failed check | 60 s and [`Timings::reconnect`] | Running shards do not need the answer. |
//! | a wait that a refused WebSocket asks for (`Retry-After`) | 5 min at most | Discord forgets a session by then anyway. A host that asks for more is contacted again after this time. |
//! | Resumes that the host ends, before the other URL is tried | 5 in a row | With their waits this is half a minute. A shorter disturbance affects both hosts, and a resume belongs to its own URL (GW-132). |
//! | asking `GET /gateway/bot` again for shards in trouble | once in 60 s at most | An outage lasts minutes. |
//! | a wait that an API asks for | a day at most | A longer wait cannot be a rate limit. |
//! | the transport's own deadline for a connection | nine tenths of [`Timings::connect`] | The transport can name the address that did not answer; the machine's deadline cannot. |
//! | bytes that wait to be written | 512 KiB | A little more than a minute of full commands. |
//! | window of a zstd stream | 8 MiB at most | The memory that a peer can make a connection hold. |
//! | a span of time in [`Timings`], [`RestartPolicy`], [`Builder::shutdown_timeout`], [`Builder::max_session_age`] | a year at most ([`LONGEST_WAIT`]) | [`Builder::build`] rejects more: added to a point in time it would overflow. |
//! | [`Builder::shards`] | 65,536 at most | Enough for more guilds than any bot has. Each shard takes memory from the start on. |
//! | [`Builder::max_message_bytes`] | 4 KiB to 2 GiB | READY has to fit; a length has to fit into 31 bits. |
//! | [`SubscriptionOptions::capacity`] | 1,048,576 at most | The queue is allocated at once, about 100 bytes for each event. |
//! | warnings of a shard that cannot connect | 3 at once, then 1 per minute | The others are at level debug: during an outage they repeat the same text. |
//! | a token | 512 bytes at most | Identify has to hold it together with the largest presence. |
//! | our close codes | 1000 to stop, 4900 to 4905 otherwise | All except 1000 keep the session; each code has one reason. |
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
