//! README's two programs equal the examples, compile with the dependencies that README names, and do what it
//! says.
//! The README of shardkeeper-proto names a third program.

#![cfg(unix)]

#[path = "../../crates/shardkeeper-proto/examples/blocking.rs"]
#[expect(dead_code, reason = "its `main` is not called")]
mod blocking;

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use shardkeeper_proto::Token;
use shardkeeper_sim::{Fault, SimConfig, Simulator};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

const FIRST: &str = env!("CARGO_BIN_EXE_first_bot");
const WHOLE: &str = env!("CARGO_BIN_EXE_whole_bot");
/// Far longer than any step here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code blocks of README in this language.
fn blocks(language: &str) -> Vec<String> {
    let readme = read("../README.md");
    let fence = format!("\n```{language}\n");
    readme
        .split(&fence)
        .skip(1)
        .map(|rest| rest[..=rest.find("\n```").expect("the block is closed")].to_owned())
        .collect()
}

#[test]
fn readme_shows_the_programs_as_they_are() {
    let program = |path: &str| {
        let text = read(path);
        text.split_once("\n\n").expect("a line of documentation is first").1.to_owned()
    };
    assert_eq!(blocks("rust"), [program("first_bot.rs"), program("whole_bot.rs")]);
}

#[test]
fn readme_names_the_dependencies_that_the_programs_are_built_with() {
    let tables: Vec<toml::Table> =
        blocks("toml").iter().map(|block| block.parse().expect("valid TOML")).collect();
    let named = tables.iter().find_map(|table| table.get("dependencies")).expect("README names dependencies");
    let workspace: toml::Table = read("../Cargo.toml").parse().expect("valid TOML");
    for (name, dependency) in named.as_table().expect("a TOML table") {
        let ours = &workspace["workspace"]["dependencies"][name];
        let version = |of: &toml::Value| of.get("version").unwrap_or(of).as_str().map(str::to_owned);
        match name.as_str() {
            "shardkeeper" => assert!(dependency["path"].as_str().is_some_and(|path| path.ends_with(name))),
            _ => {
                let (named, ours) = (version(dependency).expect(name), version(ours).expect(name));
                assert!(ours.starts_with(&named), "{name}: {named} in README, {ours} in the workspace");
            }
        }
    }
}

/// A folder of this test, removed after it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shardkeeper-readme-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the disk has room");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn simulator(configure: impl FnOnce(&mut SimConfig)) -> Simulator {
    let mut config = SimConfig::default();
    config.token = "sim-token".to_owned();
    config.events_per_second = 200.0;
    configure(&mut config);
    let simulator = Simulator::bind(config, ([127, 0, 0, 1], 0).into()).await.expect("loopback is available");
    simulator.start_traffic();
    simulator
}

fn bot(program: &str, address: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUST_LOG").env("DISCORD_TOKEN", "sim-token").env("DISCORD_SIM", address);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> (Option<i32>, String) {
    let output = timeout(PATIENCE, command.output()).await.expect("ends in time").expect("the process runs");
    let Output { status, stderr, .. } = output;
    (status.code(), String::from_utf8(stderr).expect("the output is UTF-8"))
}

/// A running bot and its output.
struct Bot {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    log: Lines<BufReader<ChildStderr>>,
}

impl Bot {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts in time");
        let output = BufReader::new(child.stdout.take().expect("the stream is piped")).lines();
        let log = BufReader::new(child.stderr.take().expect("the stream is piped")).lines();
        Self { child, output, log }
    }

    async fn until_printed(&mut self, what: impl Fn(&str) -> bool) {
        let reading = async {
            while !what(
                &self.output.next_line().await.expect("the output is UTF-8").expect("the output continues"),
            ) {}
        };
        timeout(PATIENCE, reading).await.expect("arrives in time");
    }

    /// Sends SIGINT, like Ctrl-C.
    async fn end(mut self) -> Option<i32> {
        let id = self.child.id().expect("the process runs").to_string();
        Command::new("kill").args(["-s", "INT", &id]).status().await.expect("the program kill exists");
        let reading = async { while let Ok(Some(_)) = self.output.next_line().await {} };
        timeout(PATIENCE, reading).await.expect("ends in time");
        timeout(PATIENCE, self.child.wait()).await.expect("ends in time").expect("it ran").code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bot_prints_messages() {
    let simulator = simulator(|_| {}).await;
    let address = simulator.addr().expect("the simulator listens").to_string();
    let mut bot = Bot::start(bot(FIRST, &address));
    for _ in 0..3 {
        bot.until_printed(|line| line.contains(": ")).await;
    }
    let report = simulator.report();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bot_says_why_it_cannot_work_and_ends_with_an_error() {
    let allowed = simulator(|config| config.allowed_intents = 1).await;
    let address = allowed.addr().expect("the simulator listens").to_string();
    let mut without_token = bot(FIRST, &address);
    without_token.env_remove("DISCORD_TOKEN");
    let mut empty = bot(FIRST, &address);
    empty.env("DISCORD_TOKEN", " ");
    let mut wrong = bot(FIRST, &address);
    wrong.env("DISCORD_TOKEN", "wrong-token");
    let readme = read("../README.md");
    let mut shown = 0;
    for (command, why) in [
        (without_token, "Error: \"DISCORD_TOKEN is not set"),
        (empty, "Error: the token is empty: set it to the bot token from the developer portal"),
        (wrong, "discord does not accept the token (401): take a valid one from the developer portal"),
        (bot(FIRST, &address), "Error: discord refuses the connection: 4014 (disallowed intents: "),
        (bot(FIRST, "no such host"), "is not an http or https URL"),
    ] {
        let (code, log) = output(command).await;
        let last = log.lines().last().unwrap_or_default();
        assert!(code == Some(1) && last.starts_with("Error: ") && last.contains(why), "{why}: {log}");
        assert!(!log.contains("wrong-token"), "{log}");
        shown += usize::from(readme.contains(last));
    }
    // README shows the texts for a wrong token and for an intent that is not enabled.
    assert_eq!(shown, 2, "README shows other texts than the bot prints");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bot_says_that_it_cannot_reach_discord() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback is available")
        .local_addr()
        .expect("has an address");
    let mut bot = Bot::start(bot(FIRST, &port.to_string()));
    let reading = async {
        loop {
            let line = bot.log.next_line().await.expect("the output is UTF-8").expect("the output continues");
            if line.contains("WARN") {
                return line;
            }
        }
    };
    let line = timeout(PATIENCE, reading).await.expect("arrives in time");
    for part in ["the API cannot be reached", "check that it listens", "next try in"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_bot_answers_interactions_and_resumes_after_ctrl_c() {
    let folder = Folder::new("whole");
    let simulator = simulator(|_| {}).await;
    let address = simulator.addr().expect("the simulator listens").to_string();
    for run in 1..=2 {
        let mut command = bot(WHOLE, &address);
        command.current_dir(&folder.0);
        let mut bot = Bot::start(command);
        bot.until_printed(|line| line.contains(": ")).await;
        bot.until_printed(|line| line == "answered an interaction").await;
        assert_eq!(bot.end().await, Some(0));
        let report = simulator.report();
        assert_eq!((report.identifies, report.resumes), (1, run - 1));
        assert!(report.violations.is_empty(), "{:?}", report.violations);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blocking_client_receives_messages_and_resumes() {
    let simulator = simulator(|_| {}).await;
    let url = format!("ws://{}", simulator.addr().expect("it listens")).parse().expect("it is a URL");
    let token = Token::new("sim-token").expect("it is a token");
    let (sender, done) = tokio::sync::oneshot::channel();
    let (discord, runtime) = (simulator.clone(), tokio::runtime::Handle::current());
    // Not by `spawn_blocking`: if the client hung, the runtime would wait for it.
    std::thread::spawn(move || {
        let _runtime = runtime.enter();
        let (mut messages, mut resumed) = (0, false);
        blocking::run(url, token, |event| {
            resumed |= event.event.as_deref() == Some("RESUMED");
            if event.event.as_deref() == Some("MESSAGE_CREATE") {
                messages += 1;
                if messages == 3 {
                    discord.inject(0, Fault::Reconnect).expect("it is connected");
                }
                if resumed {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        let _ = sender.send(());
    });
    timeout(PATIENCE, done).await.expect("it gets there").expect("it does not panic");
    let report = simulator.report();
    assert_eq!((report.identifies, report.resumes), (1, 1));
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}
