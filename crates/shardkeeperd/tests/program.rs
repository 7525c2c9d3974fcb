//! The program as its user sees it: exit codes, messages and signals, with a simulator or a broken peer.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use shardkeeper_sim::{ConnectFault, SimConfig, Simulator};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use self::support::{Directory, LOOPBACK, PATIENCE, Running, Sim, shardkeeperd, signal};

async fn simulator(shards: u32) -> Simulator {
    let mut config = SimConfig::default();
    config.token = "sim-token".to_owned();
    config.shards = shards;
    config.max_concurrency = shards;
    Simulator::bind(config, LOOPBACK).await.unwrap()
}

#[tokio::test]
async fn a_signal_detaches_and_the_next_run_resumes() {
    let simulator = simulator(2).await;
    let directory = Directory::new("sessions");
    let (store, record) = (directory.file("sessions"), directory.file("events"));
    let files = ["--store", &store, "--record", &record];

    let mut first = Running::start("sim-token", &simulator.api_url(), &files);
    first.until("all 2 shards of generation 1 are ready").await;
    let (code, log) = Running::start("sim-token", &simulator.api_url(), &files).end().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("is in use by another process"), "{log}");
    let asked = Instant::now();
    first.signal("TERM").await;
    let (code, log) = first.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    for file in [&store, &record] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let mut second = Running::start("sim-token", &simulator.api_url(), &files);
    second.until("all 2 shards of generation 1 are ready").await;
    second.signal("INT").await;
    assert_eq!(second.end().await.0, Some(0));
    let report = simulator.report();
    // GW-142: another process may resume a session.
    assert_eq!((report.identifies, report.resumes), (2, 2));
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let record = std::fs::read_to_string(&record).unwrap();
    assert!(
        record.starts_with(r#"{"shard":"#)
            && record.contains(r#""name":"READY","replayed":false,"may_repeat":false,"data":{"#)
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let directory = Directory::new("unusable");
    let (notes, nowhere) = (directory.file("notes"), directory.file("nowhere/file"));
    std::fs::write(&notes, "somebody's notes ".repeat(1000)).unwrap();
    for (option, file, message) in [
        ("--store", &notes, "notes is not a session store, or is damaged: remove it"),
        ("--store", &nowhere, "nowhere/file: No such file or directory"),
        ("--record", &nowhere, "nowhere/file: No such file or directory"),
    ] {
        let (code, log) = Running::start("sim-token", "http://127.0.0.1:1", &[option, file]).end().await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(message), "{message}: {log}");
    }
}

#[tokio::test]
async fn a_wrong_token_is_final() {
    let simulator = simulator(1).await;
    let (code, log) = Running::start("wrong-token", &simulator.api_url(), &[]).end().await;
    // GW-006: a 401 means that the token is invalid, so the program ends instead of retrying.
    assert_eq!(code, Some(1));
    assert!(
        log.contains("discord does not accept the token (401): take a valid one from the developer portal"),
        "{log}"
    );
    assert!(!log.contains("wrong-token"));
    // GW-297: after a 401 the token is not used again, which the simulator would report.
    assert_eq!(simulator.report().violations, []);
}

#[tokio::test]
async fn a_token_that_the_gateway_refuses_is_final() {
    let simulator = simulator(2).await;
    simulator.arm(ConnectFault::Close { code: 4004 }, 10);
    let (code, log) = Running::start("sim-token", &simulator.api_url(), &[]).end().await;
    // GW-080: close code 4004 (authentication failed) stops all shards of the token.
    assert_eq!(code, Some(1));
    assert!(log.contains("error: discord refuses the connection: 4004 (authentication failed"), "{log}");
}

#[tokio::test]
async fn forbidden_intents_are_final() {
    let mut config = SimConfig::default();
    config.token = "sim-token".to_owned();
    config.allowed_intents &= !(1 << 1);
    let simulator = Simulator::bind(config, LOOPBACK).await.unwrap();
    let (code, log) =
        Running::start("sim-token", &simulator.api_url(), &["--intents", "GUILDS,GUILD_MEMBERS"]).end().await;
    // GW-090: close code 4014 (disallowed intents) stops the bot.
    assert_eq!(code, Some(1));
    assert!(log.contains("4014 (disallowed intents: a privileged intent is not enabled"), "{log}");
}

#[tokio::test]
async fn what_is_missing_or_wrong_in_the_arguments_is_named() {
    for (arguments, message) in [
        (&["run"][..], "error: DISCORD_TOKEN is not set"),
        (
            &["run", "--token", "x", "--intents", "GUILDZ"],
            "there is no intent \"GUILDZ\"\nThe intents are: GUILDS, ",
        ),
        (&["run", "--token", "x", "--intent", "GUILDS"], "similar argument exists: '--intents'"),
        (&["run", "--token", "x", "--shard-ids", "0"], "--shards <SHARDS>"),
        (&["run", "--token", "x", "--shards", "2", "--shard-ids", "a"], "such as 0,1 or 4-7"),
        (&["run", "--token", "x", "--shards", "2", "--shard-ids", "1-2"], "with --shards 2 the highest is 1"),
        (&["sim", "--allowed-intents", "GUILDZ"], "there is no intent \"GUILDZ\""),
        (&["run", "--token", "x", "--api-url", "discord.com"], "is not an http or https URL"),
        (&["run", "--token", ""], "the token is empty"),
        (&["run", "--token", "x", "--shards", "0"], "the shard count is zero"),
        (&["run", "--token", "x", "--reshard", "on"], "[possible values: auto, off]"),
        (&["run", "--token", "x", "--gateway-check-every", "59"], "59 is not in 60.."),
        (&["demo", "--shards", "0"], "--shards"),
        (&["demo", "--reshard", "0"], "--reshard"),
        (&["demo", "--reshard", "2049"], "2049 is not in 1..=2048"),
        (&["demo", "--events-per-second=-1"], "--events-per-second"),
    ] {
        let output =
            timeout(PATIENCE, shardkeeperd(arguments).output()).await.expect("ends in time").unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}");
        assert!(log.contains(message), "{arguments:?}: {log}");
    }
}

#[tokio::test]
async fn intents_may_be_repeated_and_shards_chosen() {
    let mut config = SimConfig::default();
    config.token = "sim-token".to_owned();
    (config.shards, config.max_concurrency) = (8, 8);
    let simulator = Simulator::bind(config, LOOPBACK).await.unwrap();
    let more = ["--intents", "guilds,guild_messages", "--intents", "DIRECT_MESSAGES", "--shards", "8"];
    let more = [&more[..], &["--shard-ids", "0,5", "--shard-ids", "2-3"]].concat();
    let mut running = Running::start("sim-token", &simulator.api_url(), &more);
    running.until("all 4 shards of generation 1 are ready").await;
    let mut identified: Vec<u32> = simulator.report().identify_log.iter().map(|one| one.shard_id).collect();
    identified.sort_unstable();
    assert_eq!(identified, [0, 2, 3, 5]);
    running.signal("TERM").await;
    assert_eq!(running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_run_with_another_number_of_shards_resumes_and_then_reshards() {
    let simulator = simulator(4).await;
    let directory = Directory::new("reshard");
    let store = directory.file("sessions");
    let mut first = Running::start("sim-token", &simulator.api_url(), &["--store", &store, "--shards", "2"]);
    first.until("all 2 shards of generation 1 are ready").await;
    first.signal("TERM").await;
    assert_eq!(first.end().await.0, Some(0));
    let more = ["--store", &store, "--shards", "4", "--reshard", "off", "--gateway-check-every", "60"];
    let mut second = Running::start("sim-token", &simulator.api_url(), &more);
    for text in [
        "2 → 4 shards",
        "reshard: group 0 is warming; 0 of 2 groups done",
        "reshard: group 0 is draining; 1 of 2 groups done",
        "reshard: group 1 is retired; 2 of 2 groups done",
        "4 shards in generation 2",
    ] {
        second.until(text).await;
    }
    second.signal("TERM").await;
    let (code, log) = second.end().await;
    assert_eq!(code, Some(0), "{log}");
    let report = simulator.report();
    assert_eq!((report.identifies, report.resumes), (2 + 4, 2), "{log}");
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[tokio::test]
async fn a_record_can_go_to_standard_output() {
    let simulator = simulator(1).await;
    let mut running = Running::start("sim-token", &simulator.api_url(), &["--record", "-"]);
    let mut lines = BufReader::new(running.child.stdout.take().unwrap()).lines();
    let first = timeout(PATIENCE, lines.next_line()).await.expect("arrives in time").unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&event["name"], &event["shard"]), (&"READY".into(), &0.into()));
    // A closed pipe ends the run, because events that were not written are not acknowledged.
    drop(lines);
    simulator.start_traffic();
    let (code, log) = running.end().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("error: cannot write to standard output: Broken pipe"), "{log}");
}

#[tokio::test]
async fn a_run_with_a_start_timeout_ends_when_nothing_answers() {
    let port = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (code, log) = Running::start("sim-token", &url, &["--start-timeout", "1"]).end().await;
    assert_eq!(code, Some(1));
    let error = log.lines().last().unwrap();
    assert!(
        error.starts_with(
            "error: no answer from the gateway within 1s: the API cannot be reached: cannot open"
        ) && error.contains("check that it listens"),
        "{log}"
    );
}

/// Checks that a run that cannot connect logs each attempt, and ends on a signal.
async fn waits_and_tries_again(api_url: &str, message: &str) {
    let mut running = Running::start("sim-token", api_url, &[]);
    running.until(message).await;
    running.until("next try in").await;
    running.signal("TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.lines().count() <= 4, "no storm of lines: {log}");
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_is_tried_again() {
    let port = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap().port();
    waits_and_tries_again(&format!("http://127.0.0.1:{port}"), "GET /gateway/bot failed").await;
}

#[tokio::test]
async fn a_port_that_speaks_no_http_is_named() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"\x16\x03\x01 what do you want\r\n\r\n").await;
        }
    });
    waits_and_tries_again(&format!("http://{addr}"), "does not answer as an HTTP server: check the API URL")
        .await;
}

#[tokio::test]
async fn a_gateway_that_speaks_no_websocket_is_named() {
    for (answer, message) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nhello"[..], "HTTP status 200"),
        (b"garbage\r\n\r\n", "WebSocket handshake"),
    ] {
        // A valid REST answer that names this unresponsive gateway.
        let gateway = TcpListener::bind(LOOPBACK).await.unwrap();
        let gateway_addr = gateway.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = gateway.accept().await {
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        let rest = TcpListener::bind(LOOPBACK).await.unwrap();
        let rest_addr = rest.local_addr().unwrap();
        let limit = r#"{"total":1000,"remaining":1000,"reset_after":0,"max_concurrency":1}"#;
        let body = format!(r#"{{"url":"ws://{gateway_addr}","shards":1,"session_start_limit":{limit}}}"#);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = rest.accept().await {
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        let mut running = Running::start("sim-token", &format!("http://{rest_addr}"), &[]);
        running.until("could not connect").await;
        assert!(running.seen.contains(message), "{message}: {}", running.seen);
        running.signal("TERM").await;
        let (code, log) = running.end().await;
        assert_eq!(code, Some(0), "{log}");
    }
}

#[tokio::test]
async fn a_signal_ends_the_demo_early_and_in_order() {
    let mut child = shardkeeperd(&["demo", "--shards", "2", "--max-concurrency", "2", "--seconds", "60"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    let mut asked = None;
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("the output continues").unwrap()
    {
        if line.contains("are ready") && asked.is_none() {
            signal(&child, "TERM").await;
            asked = Some(Instant::now());
        }
        seen += &line;
        seen.push('\n');
    }
    let status = timeout(PATIENCE, child.wait()).await.expect("ends in time").unwrap();
    assert_eq!(status.code(), Some(0), "{seen}");
    assert!(asked.expect("the shards were ready").elapsed() < Duration::from_secs(10));
    assert!(seen.contains("the sessions were kept") && seen.contains("violations          0"), "{seen}");
}

#[tokio::test]
async fn a_short_demo_shows_everything_and_writes_its_report() {
    let file = std::env::temp_dir().join(format!("shardkeeperd-report-{}.json", std::process::id()));
    let demo = [
        "demo",
        "--shards",
        "3",
        "--seconds",
        "4",
        "--time-scale",
        "40",
        "--seed",
        "5",
        "--report",
        file.to_str().unwrap(),
    ];
    let output = timeout(PATIENCE, shardkeeperd(&demo).output()).await.expect("ends in time").unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    for (field, value) in
        [("shards", 3), ("identifies", 4), ("lost", 0), ("duplicated", 0), ("out_of_order", 0)]
    {
        assert_eq!(report[field], value, "{field}: {shown}");
    }
    assert_eq!(report["violations"], serde_json::json!([]));
    assert_eq!(report["shard_states"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_demo_that_reshards_counts_each_event_once() {
    let file = std::env::temp_dir().join(format!("shardkeeperd-reshard-{}.json", std::process::id()));
    let demo = ["demo", "--shards", "2", "--max-concurrency", "2", "--reshard", "4", "--seconds", "4"];
    let more = ["--time-scale", "40", "--seed", "5", "--report", file.to_str().unwrap()];
    let output = shardkeeperd(&demo).args(more).output();
    let output = timeout(PATIENCE, output).await.expect("ends in time").unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for text in [
        "── reshard: 2 → 4 shards, in 2 groups",
        " · reshard 2 → 4 · ",
        "shard 3 of generation 2: ready",
        "2 of 2 groups",
        "reshard      2 → 4 shards: 2 of 2 groups moved, finished after ",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    // One for each shard of each layout, and one for the session that a fault ends.
    for (field, value) in [("identifies", 2 + 4 + 1), ("lost", 0), ("duplicated", 0), ("out_of_order", 0)] {
        assert_eq!(report[field], value, "{field}: {shown}");
    }
    assert_eq!(report["delivered"], report["sent"]);
    let reshard = &report["reshard"];
    assert_eq!((&reshard["from"], &reshard["to"], &reshard["done"]), (&2.into(), &4.into(), &2.into()));
    let states = report["shard_states"].as_array().unwrap();
    assert!(states.len() == 4 && states.iter().all(|state| state["generation"] == 2), "{states:?}");
}

/// The text blocks that README shows after the command of the demo: the picture, and the summary.
fn readme_of_the_demo() -> [Vec<String>; 2] {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let (_, shown) = readme.split_once("run --release -- demo\n").expect("README shows the demo");
    let mut blocks = shown.split("\n```text\n").skip(1).map(|block| {
        let (text, _) = block.split_once("\n```").expect("the block is closed");
        text.lines().map(str::to_owned).collect()
    });
    [(); 2].map(|()| blocks.next().expect("README shows a picture and a summary"))
}

/// The line with one `0` for each number, and one space for each gap.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for char in line.trim().chars() {
        let char = if char.is_ascii_digit() { '0' } else { char };
        if !(char == '0' || char == ' ') || !shape.ends_with(char) {
            shape.push(char);
        }
    }
    shape
}

#[tokio::test]
async fn the_demo_prints_what_readme_shows() {
    let demo = ["demo", "--shards", "8", "--seconds", "4", "--time-scale", "40", "--seed", "5"];
    let output = timeout(PATIENCE, shardkeeperd(&demo).output()).await.expect("ends in time").unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let [picture, summary] = readme_of_the_demo();
    // The numbers, the faults and the verdict depend on the run.
    let fixed =
        |line: &String| !["fault ", "  ", "success", "no verdict"].iter().any(|it| line.starts_with(it));
    let begin = printed.find("identifies  ").expect("a summary is printed");
    let ours: Vec<String> = printed[begin..].lines().map(str::to_owned).filter(fixed).collect();
    let shapes = |lines: &[String]| lines.iter().map(|line| shape(line)).collect::<Vec<_>>();
    let readmes: Vec<String> = summary.into_iter().filter(fixed).collect();
    assert_eq!(shapes(&ours), shapes(&readmes), "{printed}");
    // The picture is drawn only on a terminal; elsewhere its first two lines are printed as one.
    let totals = shape(&picture[..2].join(" · "));
    assert!(printed.lines().any(|line| shape(line).ends_with(&totals)), "{totals}: {printed}");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_reason_to_panic() {
    let demo = ["demo", "--shards", "1", "--max-concurrency", "1", "--seconds", "2", "--time-scale", "40"];
    let mut child = shardkeeperd(&demo).spawn().unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    let reading = child.stderr.as_mut().unwrap().read_to_string(&mut errors);
    timeout(PATIENCE, reading).await.expect("ends in time").unwrap();
    let status = timeout(PATIENCE, child.wait()).await.expect("ends in time").unwrap();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn run_and_sim_understand_each_other_over_tls_zstd_and_etf() {
    let directory = std::env::temp_dir().join(format!("shardkeeperd-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (certificate, script, report) = (file("sim.pem"), file("script.toml"), file("report.json"));
    let step = "[[step]]\nat_ms = 1000\ndo = \"fault\"\nfault = \"reconnect\"\n";
    std::fs::write(&script, step.replace("1000", "3000")).unwrap();
    let sim = [
        "--tls",
        &certificate,
        "--shards",
        "2",
        "--max-concurrency",
        "2",
        "--strict",
        "--events-per-second",
        "200",
        "--script",
        &script,
        "--report",
        &report,
        "--split-frames",
        "--split-suffix",
        "--mixed-atoms",
        "--token",
        "sim-token",
    ];
    let sim = Sim::start(LOOPBACK, &sim).await;
    // GW-013: WebSockets over TLS.
    assert!(sim.api_url.starts_with("https://"), "{}", sim.api_url);
    let more = [
        "--trust",
        &certificate,
        "--compression",
        "zstd-stream",
        "--encoding",
        "etf",
        "--intents",
        "53608447",
    ];
    let mut run = Running::start("sim-token", &sim.api_url, &more);
    for _ in 0..2 {
        run.until("resumed").await;
    }
    run.signal("TERM").await;
    let (code, log) = run.end().await;
    assert_eq!(code, Some(0), "{log}");
    let (code, said) = sim.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("2 identifies (0 refused), 2 resumes") && said.contains("no rule was broken"),
        "{said}"
    );
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["resumes"], 2);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The resident memory of a process, in KiB.
#[cfg(target_os = "linux")]
fn resident(child: &tokio::process::Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// 300 clients that send nothing, and 60 that announce 15 MiB and send nearly all of it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_never_identify_cost_the_sim_little() {
    const IDLE: usize = 300;
    const UNFINISHED: usize = 60;
    let sim = Sim::start(LOOPBACK, &[]).await;
    let address = sim.api_url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let open = || async {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = "GET /?v=10&encoding=json HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // Wait for the HTTP status 101 and Hello.
        let mut seen = Vec::new();
        while !seen.ends_with(b"\"op\":10,\"d\":{\"heartbeat_interval\":41250,\"_trace\":[\"[\\\"sim\\\",{\\\"micros\\\":0.0}]\"]}}") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        }
        stream
    };
    // The first connections also cost memory that the program keeps for itself, so they are not measured.
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(open().await);
    }
    let before = resident(&sim.child);
    for _ in 0..IDLE {
        streams.push(open().await);
    }
    let idle = resident(&sim.child).saturating_sub(before);
    assert!(idle < IDLE * 24, "{idle} KiB for {IDLE} idle connections");
    let before = resident(&sim.child);
    for _ in 0..UNFINISHED {
        let mut stream = open().await;
        let mut head = vec![0x82, 0x80 | 127];
        head.extend_from_slice(&(15_u64 << 20).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        // The server rejects the frame at its header, so writing the rest may fail.
        let _ = stream.write_all(&head).await;
        let _ = timeout(Duration::from_millis(100), stream.write_all(&vec![b'x'; 14 << 20])).await;
        streams.push(stream);
    }
    let unfinished = resident(&sim.child).saturating_sub(before);
    assert!(unfinished < 16 * 1024, "{unfinished} KiB for {UNFINISHED} unfinished frames");
    eprintln!("{idle} KiB for {IDLE} idle connections, {unfinished} KiB for {UNFINISHED} unfinished frames");
    let (_, said) = sim.end().await;
    assert!(said.contains(&format!("rules were broken {UNFINISHED} times")), "{said}");
}

#[tokio::test]
async fn sim_tells_what_is_wrong_with_its_arguments() {
    let script = std::env::temp_dir().join(format!("shardkeeperd-script-{}.toml", std::process::id()));
    std::fs::write(&script, "[[step]]\nat_ms = 1\ndo = \"fault\"\nfault = \"explode\"\n").unwrap();
    for (arguments, culprit) in [
        (vec!["--script", "/nowhere.toml"], "/nowhere.toml"),
        (
            vec!["--script", script.to_str().unwrap()],
            "step 1 of the script, line 4, key \"fault\": unknown variant `explode`, expected one of",
        ),
        (vec!["--time-scale", "0"], "--time-scale is 0"),
        (vec!["--events-per-second=-1"], "events-per-second"),
        (vec!["--listen", "192.0.2.1:1"], "cannot listen on 192.0.2.1:1"),
        (vec!["--mix", "quiet"], "possible values: busy, everything"),
    ] {
        let output =
            timeout(PATIENCE, shardkeeperd(&["sim"]).args(&arguments).output()).await.unwrap().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(culprit), "{arguments:?}: {error}");
    }
    std::fs::remove_file(script).unwrap();
}

#[tokio::test]
async fn a_strict_sim_ends_with_an_error_when_a_rule_was_broken() {
    let sim = Sim::start(LOOPBACK, &["--strict"]).await;
    // GW-297: a token that was refused must not be used again, as this client does.
    for _ in 0..2 {
        let address = sim.api_url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            "GET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\nauthorization: Bot x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut String::new()).await.unwrap();
    }
    let (code, said) = sim.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("violation: GW-297") && said.contains("rules were broken once"), "{said}");
    assert!(said.contains("Discord refuses it, and 10,000 such requests"), "with the reason: {said}");
}

#[tokio::test]
async fn advice_fails_only_a_sim_that_is_strict_about_it() {
    for (strict, expected) in [("--strict", 0), ("--strict=violation", 0), ("--strict=advice", 1)] {
        let sim = Sim::start(LOOPBACK, &["--token", "sim-token", strict]).await;
        // GW-281: Discord asks for a User-Agent, which this client does not send.
        let address = sim.api_url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = "GET /api/v10/users/@me HTTP/1.1\r\nhost: x\r\nauthorization: Bot sim-token\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut String::new()).await.unwrap();
        let (code, said) = sim.end().await;
        assert_eq!(code, Some(expected), "{strict}: {said}");
        assert!(said.contains("advice: GW-281") && said.contains("advice was ignored once"), "{said}");
    }
}
