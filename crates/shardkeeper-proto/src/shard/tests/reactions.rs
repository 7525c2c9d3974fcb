//! What the machine does in every state with every kind of input.
//!
//! The table is `reactions.txt`. A state or an input that is new does not compile here before it has a name, and fails the test
//! before it has its rows.

use super::*;
use crate::Opcode;

/// A function that names each variant of an enum, and the list of all those names.
macro_rules! names {
    ($function:ident, $all:ident, $of:ident: $($variant:ident)*) => {
        const $all: &[&str] = &[$(stringify!($variant)),*];

        fn $function(of: &$of) -> &'static str {
            match of {
                $($of::$variant { .. } => stringify!($variant),)*
            }
        }
    };
}

type SomeInput = Input<'static>;

names!(state_name, STATES, State:
    Idle Disconnected Queued Connecting AwaitingHello AwaitingPermit Identifying Resuming Ready Closing Stopped Refused);
names!(input_name, INPUTS, SomeInput:
    Start Connected ConnectDelayed ConnectFailed ConnectRefused Payload Malformed Unreadable Closed ConnectGrant Permit
    QueueReplaced GatewayUrl Presence Command TakeOver GiveUpCommands ReadingPaused Probe Timeout Reconnect Stop Detach);
names!(change_name, CHANGES, Change:
    Queued Connecting Paced Hello Identifying Resuming Ready Resumed Disconnected Stopped Refused);

/// What [`situation`] says of it, whether it begins with a session, and how a new bench gets there.
type Situation = (&'static str, bool, Act);

const SITUATIONS: [Situation; 20] = [
    ("Idle", false, |bench| bench),
    ("Queued", false, |bench| bench.feed(Input::Start)),
    ("Connecting, without a session", false, |bench| bench.feed(Input::Start).feed(Input::ConnectGrant)),
    ("Connecting, with a session", true, |bench| bench.feed(Input::Start)),
    ("Connecting, to end the session", true, |bench| bench.feed(Input::Start).feed(Input::Stop)),
    ("AwaitingHello, without a session", false, |bench| bench.connect()),
    ("AwaitingHello, with a session", true, |bench| bench.feed(Input::Start).feed(Input::Connected)),
    ("AwaitingHello, to end the session", true, |bench| {
        bench.feed(Input::Start).feed(Input::Connected).feed(Input::Stop)
    }),
    ("AwaitingPermit", false, |bench| bench.connect().hello()),
    ("Identifying", false, |bench| bench.identify()),
    ("Resuming", true, |bench| bench.resume()),
    ("Resuming, to end the session", true, |bench| {
        bench.feed(Input::Start).feed(Input::Connected).feed(Input::Stop).hello()
    }),
    ("Ready", false, |bench| bench.up()),
    ("Closing, to connect again", false, |bench| bench.up().receive(r#"{"op":7}"#)),
    ("Closing, to stop", false, |bench| bench.up().feed(Input::Detach)),
    ("Closing, to end the session", false, |bench| bench.up().receive(r#"{"op":7}"#).feed(Input::Stop)),
    ("Disconnected, with a session", false, |bench| bench.up().closed(None)),
    ("Disconnected, without a session", false, |bench| bench.connect().closed(None)),
    ("Stopped", false, |bench| bench.feed(Input::Stop)),
    ("Refused", false, |bench| bench.up().closed(Some(4004))),
];

/// The state, with what else tells in it what the machine does.
fn situation(shard: &Shard) -> String {
    let aim = match shard.state {
        State::Closing { then: Then::Retry { .. }, .. } => ", to connect again",
        State::Closing { then: Then::Stop, .. } => ", to stop",
        State::Closing { then: Then::EndSession, .. } => ", to end the session",
        _ if shard.ending_session.is_some() => ", to end the session",
        State::Connecting { .. } | State::AwaitingHello { .. } | State::Disconnected { .. } => {
            if shard.session.is_some() { ", with a session" } else { ", without a session" }
        }
        _ => "",
    };
    format!("{}{aim}", state_name(&shard.state))
}

/// What stands behind the name of the input, and the input.
type Given = (&'static str, fn() -> SomeInput);

/// Each kind of input, except payloads.
const GIVEN: [Given; 23] = [
    ("", || Input::Start),
    ("", || Input::Connected),
    ("", || Input::ConnectDelayed(Duration::from_secs(1))),
    ("", || Input::ConnectFailed),
    ("", || Input::ConnectRefused { retry_after: Duration::from_secs(1) }),
    ("", || Input::Malformed),
    ("", || Input::Unreadable("why")),
    ("", || Input::Closed { code: None, corrupt: false, detail: None }),
    (" 4004", || Input::Closed { code: Some(4004), corrupt: false, detail: None }),
    ("", || Input::ConnectGrant),
    ("", || Input::Permit(IdentifyPermit::issue())),
    ("", || Input::QueueReplaced),
    ("", || Input::GatewayUrl("wss://other.example".parse().unwrap())),
    ("", || Input::Presence(presence("p"))),
    ("", voice),
    ("", || Input::TakeOver(CommandId(1), VoiceStateUpdate::leave(1).into(), None)),
    ("", || Input::GiveUpCommands),
    ("", || Input::ReadingPaused(true)),
    ("", || Input::Probe(7)),
    ("", || Input::Reconnect { fresh: false }),
    (" fresh", || Input::Reconnect { fresh: true }),
    ("", || Input::Stop),
    ("", || Input::Detach),
];
/// Payloads by what they hold.
const PAYLOADS: [(&str, &str); 10] = [
    ("op 10 Hello", r#"{"op":10,"d":{"heartbeat_interval":41250}}"#),
    ("op 10 unreadable", r#"{"op":10}"#),
    ("op 11", r#"{"op":11}"#),
    ("op 1", r#"{"op":1}"#),
    ("op 7", r#"{"op":7}"#),
    ("op 9 true", r#"{"op":9,"d":true}"#),
    ("op 9 false", r#"{"op":9,"d":false}"#),
    (
        "op 0 READY",
        r#"{"op":0,"s":1,"t":"READY","d":{"session_id":"S","resume_gateway_url":"wss://r.example"}}"#,
    ),
    ("op 0 RESUMED", r#"{"op":0,"s":43,"t":"RESUMED","d":{}}"#),
    ("op 0 another event", r#"{"op":0,"s":43,"t":"X","d":{}}"#),
];

fn show(output: &Output) -> String {
    match output {
        Output::Send(payload) => {
            let opcodes = [Opcode::Identify, Opcode::Resume, Opcode::Heartbeat, Opcode::PresenceUpdate];
            let opcode = opcodes.into_iter().find(|opcode| payload.is(*opcode));
            opcode.map_or_else(|| "Send(command)".to_owned(), |opcode| format!("Send({opcode:?})"))
        }
        Output::Close(code) => format!("Close({code})"),
        Output::Changed(Change::Disconnected { reason, next, .. }) => {
            let next = match next {
                Next::Resume { .. } => "Resume",
                Next::Identify { .. } => "Identify",
                Next::End => "End",
            };
            let reason = format!("{reason:?}");
            let reason = reason.split([' ', '(']).next().unwrap_or_default();
            format!("Disconnected({reason}, then {next})")
        }
        Output::Changed(change) => format!("Changed({})", change_name(change)),
        Output::SessionChanged(session) => {
            format!("SessionChanged({})", if session.is_some() { "Some" } else { "None" })
        }
        Output::Deliver { replayed, .. } => {
            (if *replayed { "Deliver(replayed)" } else { "Deliver" }).to_owned()
        }
        Output::Connect(_) => "Connect".to_owned(),
        Output::CommandSent(_) => "CommandSent".to_owned(),
        Output::CommandGivenUp(..) => "CommandGivenUp".to_owned(),
        Output::CommandExpired(_) => "CommandExpired".to_owned(),
        Output::Disconnect => "Disconnect".to_owned(),
        Output::Enqueue(_) => "Enqueue".to_owned(),
        Output::ClaimPermit(_) => "ClaimPermit".to_owned(),
        Output::AskGateway => "AskGateway".to_owned(),
        Output::Probed(_) => "Probed".to_owned(),
        Output::LeaveQueue => "LeaveQueue".to_owned(),
        Output::Odd(_) => "Odd".to_owned(),
        Output::Timeout(_) => unreachable!("the bench keeps it"),
    }
}

/// What the machine does in this situation with each input. Those of which nothing comes are listed at the end.
fn reactions(resumes: bool, reach: Act) -> String {
    let start = || {
        let mut bench = Bench::with_session(resumes.then(|| session(42)));
        reach(&mut bench).clear();
        bench
    };
    let before = situation(&start().shard);
    let (mut table, mut ignored) = (format!("{before}\n"), "    nothing comes of".to_owned());
    let mut add = |input: &str, react: &dyn Fn(&mut Bench)| {
        let mut bench = start();
        react(&mut bench);
        let after = situation(&bench.shard);
        let mut outputs = bench.out.iter().map(show).collect::<Vec<_>>().join(", ");
        if outputs.is_empty() && after == before {
            let line = ignored.len() - ignored.rfind('\n').unwrap_or(0);
            let gap = if line + input.len() > 100 { "\n        " } else { "  " };
            ignored.extend([gap, input]);
            return;
        }
        if after != before {
            outputs = format!("{outputs} -> {after}");
        }
        table.push_str(&format!("    {input:<20} {}\n", outputs.trim_start()));
    };
    for (detail, given) in GIVEN {
        add(&format!("{}{detail}", input_name(&given())), &|bench| {
            bench.feed(given());
        });
    }
    add("Timeout", &|bench| {
        bench.now = bench.wakes_at.unwrap_or(bench.now);
        bench.feed(Input::Timeout);
    });
    for (payload, text) in PAYLOADS {
        add(payload, &|bench| {
            bench.receive(text);
        });
    }
    format!("{table}{ignored}\n")
}

#[test]
fn every_state_reacts_to_every_input_as_the_table_says() {
    let table: Vec<String> =
        SITUATIONS.iter().map(|(_, resumes, reach)| reactions(*resumes, *reach)).collect();
    for ((situation, ..), reactions) in SITUATIONS.iter().zip(&table) {
        assert_eq!(reactions.lines().next(), Some(*situation));
    }
    let table = table.join("\n");
    for (is, should) in table.lines().zip(include_str!("reactions.txt").lines()) {
        assert_eq!(is, should, "the whole table is now:\n{table}");
    }
    assert_eq!(table, include_str!("reactions.txt"));

    let states: Vec<&str> = SITUATIONS.iter().map(|(situation, ..)| *situation).collect();
    let given: Vec<&str> = GIVEN.iter().map(|(_, given)| input_name(&given())).collect();
    let has_row = |name: &str| ["Payload", "Timeout"].contains(&name) || given.contains(&name);
    for state in STATES {
        assert!(
            states.iter().any(|situation| situation.split(',').next() == Some(*state)),
            "no rows: {state}"
        );
    }
    for input in INPUTS {
        assert!(has_row(input), "no row: {input}");
    }
    for change in CHANGES {
        assert!(table.contains(change), "no state and no input leads to {change}");
    }
}
