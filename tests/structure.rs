//! What the architecture forbids, as tests: edges between crates, and profiles that would disable supervision.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Who may depend on whom, for building. The simulator is a second reading of the protocol: it shares nothing with
/// the others, so that a misreading cannot cancel out; protocol and transport meet in `shardkeeper` alone.
const EDGES: &[(&str, &str)] = &[
    ("shardkeeper", "shardkeeper-proto"),
    ("shardkeeper", "shardkeeper-transport"),
    ("shardkeeperd", "shardkeeper"),
    ("shardkeeperd", "shardkeeper-sim"),
];

/// These may use every crate.
const CONSUMERS: &[&str] = &["shardkeeper-clients", "shardkeeper-examples", "shardkeeper-tests"];

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
