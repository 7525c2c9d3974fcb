//! The table of rules, `rules.csv`: each of the protocol's 303 rules has a test, or the reason why it has none. What the
//! rules say stands in the Gateway's documentation; the numbers are those that comments, tests and violations name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const RULES: usize = 303;
/// Where the tests of each package are.
const PACKAGES: [(&str, &str); 7] = [
    ("shardkeeper", "../crates/shardkeeper"),
    ("shardkeeper-clients", "clients"),
    ("shardkeeper-proto", "../crates/shardkeeper-proto"),
    ("shardkeeper-sim", "../crates/shardkeeper-sim"),
    ("shardkeeper-tests", "."),
    ("shardkeeper-transport", "../crates/shardkeeper-transport"),
    ("shardkeeperd", "../crates/shardkeeperd"),
];

struct Row {
    rule: usize,
    level: String,
    tests: BTreeSet<String>,
    why: String,
}

fn table() -> Vec<Row> {
    let text = fs::read_to_string("rules.csv").expect("the table is there");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let [rule, level, tests, why] = fields[..] else { panic!("four fields: {line}") };
        Row {
            rule: rule.strip_prefix("GW-").and_then(|number| number.parse().ok()).expect("a rule"),
            level: level.to_owned(),
            tests: tests.split_whitespace().map(str::to_owned).collect(),
            why: why.to_owned(),
        }
    };
    text.lines().skip(1).map(row).collect()
}

/// Every test as `package::name`.
fn tests() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (package, folder) in PACKAGES {
        collect(package, Path::new(folder), &mut all);
    }
    all
}

fn collect(package: &str, folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            // Other packages, and what is generated.
            if !(folder == Path::new(".") && matches!(name.as_str(), "clients" | "fuzz" | "target")) {
                collect(package, &path, all);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("it is text");
            let mut is_test = false;
            let mut in_proptest = false;
            for line in text.lines() {
                let trimmed = line.trim_start();
                is_test |= trimmed.starts_with("#[test]") || trimmed.starts_with("#[tokio::test");
                in_proptest |= trimmed.starts_with("proptest! {");
                let function = trimmed.strip_prefix("async ").unwrap_or(trimmed).strip_prefix("fn ");
                if let Some(name) = function.filter(|_| is_test || in_proptest) {
                    let name = name.split(['(', '<']).next().unwrap_or_default();
                    all.insert(format!("{package}::{name}"));
                    is_test = false;
                }
            }
        }
    }
}

/// The rules that a test names: `gw_018_…`, `gw_040_041_…`, `gw_209_to_215_…`.
fn named(test: &str) -> Vec<usize> {
    let name = test.split("::").nth(1).unwrap_or_default();
    let Some(rest) = name.strip_prefix("gw_") else { return Vec::new() };
    let (mut rules, mut range) = (Vec::new(), false);
    for part in rest.split('_') {
        match part.parse::<usize>() {
            Ok(number) if part.len() == 3 => {
                let first = if range { rules.last().map_or(number, |last| last + 1) } else { number };
                rules.extend(first..=number);
                range = false;
            }
            _ if part == "to" && !range => range = true,
            _ => break,
        }
    }
    rules
}

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let table = table();
    assert_eq!(table.iter().map(|row| row.rule).collect::<Vec<_>>(), (1..=RULES).collect::<Vec<_>>());
    let known = tests();
    for row in &table {
        let rule = row.rule;
        assert!(matches!(row.level.as_str(), "MUST" | "SHOULD" | "FACT"), "GW-{rule:03}: {}", row.level);
        assert!(!row.tests.is_empty() || !row.why.is_empty(), "GW-{rule:03} has neither test nor reason");
        for test in &row.tests {
            assert!(known.contains(test), "GW-{rule:03} names {test}, which does not exist");
        }
    }
}

#[test]
fn every_test_that_names_a_rule_is_in_the_table() {
    let table: BTreeMap<usize, Row> = table().into_iter().map(|row| (row.rule, row)).collect();
    for test in tests() {
        for rule in named(&test) {
            let row = table.get(&rule).unwrap_or_else(|| panic!("{test}: there is no rule {rule}"));
            assert!(row.tests.contains(&test), "{test} is missing in the row of GW-{rule:03}");
        }
    }
}

#[test]
fn names_of_tests_are_read_as_they_are_meant() {
    assert_eq!(named("p::gw_018_any_order"), [18]);
    assert_eq!(named("p::gw_040_041_x"), [40, 41]);
    assert_eq!(named("p::gw_209_to_212_x"), [209, 210, 211, 212]);
    assert_eq!(named("p::gw_263_to_264_266_x"), [263, 264, 266]);
    assert_eq!(named("p::b7_close_codes"), []);
}
