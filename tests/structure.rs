//! Tests of what the architecture forbids: edges between crates or rooms, and profiles that disable
//! supervision.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// The allowed build dependencies between crates. The simulator implements the protocol independently and
/// shares nothing with the others, so that a mistake cannot cancel out; protocol and transport meet only in
/// `shardkeeper`.
const EDGES: &[(&str, &str)] = &[
    ("shardkeeper", "shardkeeper-proto"),
    ("shardkeeper", "shardkeeper-transport"),
    ("shardkeeperd", "shardkeeper"),
    ("shardkeeperd", "shardkeeper-sim"),
];

/// The crates that may use every other one.
const CONSUMERS: &[&str] = &["shardkeeper-examples", "shardkeeper-tests"];

fn metadata() -> cargo_metadata::Metadata {
    MetadataCommand::new().manifest_path("../Cargo.toml").exec().expect("cargo describes the workspace")
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let metadata = metadata();
    let ours: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let mut edges = BTreeSet::new();
    for package in metadata.workspace_packages() {
        if CONSUMERS.contains(&package.name.as_str()) {
            continue;
        }
        for dependency in &package.dependencies {
            if ours.contains(&dependency.name) && dependency.kind != DependencyKind::Build {
                edges.insert((package.name.to_string(), dependency.name.clone()));
            }
        }
    }
    let allowed = EDGES.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(edges, allowed);
}

/// The rooms of `shardkeeper`, each above all that it imports. Control goes down the list from `bot` to
/// `shard`; events go from `shard` out through `dispatch`. The chapter on architecture has the picture.
const ROOMS: [&str; 17] = [
    "chain",
    "task",
    "layout",
    "gateway_info",
    "error",
    "reshard",
    "dispatch",
    "status",
    "command",
    "gate",
    "store",
    "message",
    "identify",
    "session",
    "shard",
    "manager",
    "bot",
];

#[test]
fn no_room_imports_from_above() {
    let source = Path::new("../crates/shardkeeper/src");
    let mut upward = Vec::new();
    for (height, room) in ROOMS.iter().enumerate() {
        let files = if source.join(room).is_dir() { files_of(&source.join(room)) } else { Vec::new() };
        let file = source.join(format!("{room}.rs"));
        for path in files.into_iter().chain(file.is_file().then_some(file)) {
            let text = fs::read_to_string(&path).expect("it is text");
            for import in imports(&text) {
                // A name of the root is a re-export: it hides where it comes from.
                if ROOMS.iter().position(|room| *room == import).is_none_or(|of| of > height) {
                    upward.push(format!("{} imports crate::{import}", path.display()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "imports that go up, or through a re-export: {upward:#?}");
    let known: BTreeSet<&str> = ROOMS.into_iter().chain(["lib", "manual"]).collect();
    for entry in fs::read_dir(source).expect("the folder is there") {
        let name = entry.expect("it can be read").file_name().into_string().expect("plain names");
        let room = name.strip_suffix(".rs").unwrap_or(&name);
        assert!(known.contains(room), "{name} is not in the list of rooms");
    }
}

/// The source files below a folder that are part of the library, without files of tests.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        let is_test = path.ends_with("orders.rs") || path.ends_with("tests.rs");
        if path.is_dir() {
            files.extend(files_of(&path));
        } else if !is_test {
            files.push(path);
        }
    }
    files
}

/// The names that follow `crate::` in the code of a file, without its tests and comments.
fn imports(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = lines.flat_map(|line| line.split("crate::").skip(1));
    after
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect()
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let text = "use crate::dispatch::Hub;\n/// [`crate::Builder`]\nlet x = crate::error::chain(&e);\nuse crate::{a, b};\n\
                pub(crate) fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::bot::Builder;\n}\n";
    // A list of imports from the root has no name here, so it names no room.
    assert_eq!(imports(text), ["dispatch", "error", ""]);
}

/// The picture in the chapter on architecture has one room per line, from the top down.
#[test]
fn the_architecture_chapter_shows_the_rooms_in_their_order() {
    let chapter =
        fs::read_to_string("../crates/shardkeeper/src/manual/_01_architecture.rs").expect("it is text");
    let section = chapter.split("\n//! # Modules\n").nth(1).expect("the chapter has the modules");
    let picture = section.split("```").nth(1).expect("the section has a picture");
    let first_words = picture.lines().filter_map(|line| {
        let line = line.trim_start_matches("//!").trim_start_matches([' ', '│', '├', '└', '─', '▶', '▼']);
        line.split_whitespace().next()
    });
    let shown: Vec<&str> = first_words.filter(|word| ROOMS.contains(word)).collect();
    let expected: Vec<&str> = ROOMS.into_iter().rev().collect();
    assert_eq!(shown, expected);
}

/// Names that would give the protocol I/O, a clock, random numbers or tasks.
const IMPURE: [&str; 7] =
    ["std::fs", "std::net", "std::thread", "Instant::now", "SystemTime", "tokio", "fastrand"];

#[test]
fn the_protocol_does_no_io_and_reads_no_clock() {
    let files = files_of(Path::new("../crates/shardkeeper-proto/src"));
    let read = |path: &PathBuf| fs::read_to_string(path).expect("it is text");
    let of_tests: BTreeSet<String> = files.iter().flat_map(|path| modules_of_tests(&read(path))).collect();
    let is_test = |path: &Path| {
        let path = path.with_extension("");
        path.iter().any(|name| of_tests.contains(&*name.to_string_lossy()))
    };
    let mut checked = 0;
    for path in files.iter().filter(|path| !is_test(path)) {
        let text = read(path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let impure = IMPURE.iter().find(|name| line.contains(**name));
            assert!(impure.is_none(), "{}: {line}", path.display());
        }
        checked += 1;
    }
    assert!(checked > 20, "only {checked} files");
}

/// The modules that a file declares for its tests only.
fn modules_of_tests(text: &str) -> Vec<String> {
    let after = text.split("#[cfg(test)]\nmod ").skip(1);
    after.filter_map(|rest| rest.split_once([';', ' '])).map(|(name, _)| name.to_owned()).collect()
}

/// Mailboxes have no bound, so what Discord sends must not be in one. Subscriptions carry it.
#[test]
fn no_message_between_actors_carries_a_dispatch() {
    for file in ["message.rs", "session/keeper.rs"] {
        let text = fs::read_to_string(Path::new("../crates/shardkeeper/src").join(file)).expect("it is text");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for name in ["Delivery", "Dispatch", "Envelope", "Event>", "Event)"] {
            assert!(!code.contains(name), "{file} has {name}");
        }
    }
}

/// A C zlib anywhere in the graph would silently take the place of zlib-rs.
#[test]
fn the_inflater_is_zlib_rs_and_there_is_one_crypto_provider() {
    let metadata = metadata();
    let names: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert!(names.contains("zlib-rs") && names.contains("ring"));
    for foreign in ["libz-sys", "libz-ng-sys", "cloudflare-zlib-sys", "aws-lc-rs", "openssl"] {
        assert!(!names.contains(foreign), "{foreign} is in the graph");
    }
}

/// Supervision catches panics; a profile that aborts would turn each into the end of the process.
#[test]
fn every_profile_unwinds() {
    let manifest = std::fs::read_to_string("../Cargo.toml").expect("the workspace has a manifest");
    assert!(!manifest.contains(r#"panic = "abort""#));
    for profile in ["dev", "release"] {
        let section = manifest.split(&format!("[profile.{profile}]")).nth(1).expect("the profile is there");
        let section = section.split("\n[").next().unwrap_or_default();
        assert!(section.contains(r#"panic = "unwind""#), "{profile}");
    }
}
