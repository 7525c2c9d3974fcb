//! Shared by the tests of the program: processes, and temporary files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far longer than any step here takes, so that a program that hangs fails its test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How many log lines may wait for the test to read them: more than any program here writes.
const LOG_LINES: usize = 1 << 16;

/// A directory of this test, removed after it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shardkeeperd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn shardkeeperd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardkeeperd"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("DISCORD_TOKEN");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A running `shardkeeperd run`, and its log.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: mpsc::Receiver<String>,
    pub(crate) seen: String,
}

impl Running {
    pub(crate) fn start(token: &str, api_url: &str, more: &[&str]) -> Self {
        let mut command = shardkeeperd(&["run", "--api-url", api_url]);
        command.args(more).env("DISCORD_TOKEN", token);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel(LOG_LINES);
        // The log is read at all times: a full pipe would block the program.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line).await;
            }
        });
        Self { child, log, seen: String::new() }
    }

    /// Reads the log until a line contains this text.
    pub(crate) async fn until(&mut self, text: &str) {
        let reading = async {
            while let Some(line) = self.log.recv().await {
                self.seen += &line;
                self.seen.push('\n');
                if line.contains(text) {
                    return true;
                }
            }
            false
        };
        let found = timeout(PATIENCE, reading).await;
        assert_eq!(found, Ok(true), "no {text:?} in:\n{}", self.seen);
    }

    pub(crate) async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    /// Reads the rest of the log; returns the exit code and the whole log.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        while let Some(line) = timeout(PATIENCE, self.log.recv()).await.expect("ends in time") {
            self.seen += &line;
            self.seen.push('\n');
        }
        let status = timeout(PATIENCE, self.child.wait()).await.expect("ends in time").unwrap();
        assert!(!self.seen.contains("panicked"), "{}", self.seen);
        (status.code(), self.seen)
    }
}

pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("the process runs").to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
}

/// A running `shardkeeperd sim`, and its output.
pub(crate) struct Sim {
    pub(crate) child: Child,
    output: Lines<BufReader<ChildStdout>>,
    pub(crate) api_url: String,
}

impl Sim {
    pub(crate) async fn start(listen: SocketAddr, arguments: &[&str]) -> Self {
        let listen = listen.to_string();
        let mut child = shardkeeperd(&["sim", "--listen", &listen]).args(arguments).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, output.next_line()).await.expect("starts in time").unwrap().unwrap();
        let api_url = line.split("API at ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        Self { child, output, api_url }
    }

    /// Ends the simulator; returns its exit code and output.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        signal(&self.child, "TERM").await;
        let mut said = String::new();
        while let Some(line) =
            timeout(PATIENCE, self.output.next_line()).await.expect("ends in time").unwrap()
        {
            said += &line;
            said.push('\n');
        }
        (timeout(PATIENCE, self.child.wait()).await.expect("ends in time").unwrap().code(), said)
    }
}
