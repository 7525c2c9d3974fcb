//! The table of rules, `rules.csv`: each of the protocol's 303 rules has a test, or the reason why it has none. What the
//! rules say stands in the Gateway's documentation; the numbers are those that comments, tests and violations name.
//!
//! Each test of the table cites its rules, in its name or at the assertion. A citation shows which line is meant to check
//! the rule; it is no proof that the line does. Only a mutant that breaks the rule and fails the test proves that.

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

/// The source of every test by `package::name`. Tests of one name in different files of a package count as one.
fn tests() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (package, folder) in PACKAGES {
        collect(package, Path::new(folder), &mut all);
    }
    all
}

fn collect(package: &str, folder: &Path, all: &mut BTreeMap<String, String>) {
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
            let lines: Vec<&str> = text.lines().collect();
            let mut is_test = false;
            let mut in_proptest = false;
            for (at, line) in lines.iter().enumerate() {
                let trimmed = line.trim_start();
                is_test |= trimmed.starts_with("#[test]") || trimmed.starts_with("#[tokio::test");
                in_proptest |= trimmed.starts_with("proptest! {");
                let function = trimmed.strip_prefix("async ").unwrap_or(trimmed).strip_prefix("fn ");
                if let Some(name) = function.filter(|_| is_test || in_proptest) {
                    let name = name.split(['(', '<']).next().unwrap_or_default();
                    all.entry(format!("{package}::{name}")).or_default().push_str(&source(&lines, at));
                    is_test = false;
                }
            }
        }
    }
}

/// The function whose `fn` is in line `at`, with the comments and attributes directly above. `rustfmt` ends it with the
/// first line that is only a brace, indented as the `fn` is.
fn source(lines: &[&str], at: usize) -> String {
    let is_above = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    let first = at - lines[..at].iter().rev().take_while(is_above).count();
    let indent = lines[at].len() - lines[at].trim_start().len();
    let end = format!("{:indent$}}}", "");
    let is_end = |line: &&str| *line == end;
    let length = if lines[at].ends_with('}') { 0 } else { lines[at..].iter().position(is_end).unwrap_or(0) };
    lines[first..=at + length].join("\n") + "\n"
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
            assert!(known.contains_key(test), "GW-{rule:03} names {test}, which does not exist");
        }
    }
}

#[test]
fn every_test_that_names_a_rule_is_in_the_table() {
    let table: BTreeMap<usize, Row> = table().into_iter().map(|row| (row.rule, row)).collect();
    for test in tests().keys() {
        for rule in named(test) {
            let row = table.get(&rule).unwrap_or_else(|| panic!("{test}: there is no rule {rule}"));
            assert!(row.tests.contains(test), "{test} is missing in the row of GW-{rule:03}");
        }
    }
}

#[test]
fn every_test_cites_the_rules_that_it_is_in_the_table_for() {
    let sources = tests();
    let mut missing = Vec::new();
    for row in table() {
        let citation = format!("GW-{:03}", row.rule);
        for test in &row.tests {
            let is_cited = sources.get(test).is_some_and(|source| source.contains(&citation));
            if !is_cited && !named(test).contains(&row.rule) {
                missing.push(format!("{test}: {citation}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not cited; add the number at the assertion, or take the test out of the row: {missing:#?}"
    );
}

#[test]
fn sources_of_tests_are_cut_where_they_begin_and_end() {
    let file =
        "// far\n\n/// doc\n#[test]\nfn one() {\n    {\n    }\n}\n// near\nfn two() {}\nfn three() {\n}";
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(source(&lines, 4), "/// doc\n#[test]\nfn one() {\n    {\n    }\n}\n");
    assert_eq!(source(&lines, 9), "// near\nfn two() {}\n");
    assert_eq!(source(&lines, 10), "fn three() {\n}\n");
}

#[test]
fn names_of_tests_are_read_as_they_are_meant() {
    assert_eq!(named("p::gw_018_any_order"), [18]);
    assert_eq!(named("p::gw_040_041_x"), [40, 41]);
    assert_eq!(named("p::gw_209_to_212_x"), [209, 210, 211, 212]);
    assert_eq!(named("p::gw_263_to_264_266_x"), [263, 264, 266]);
    assert_eq!(named("p::b7_close_codes"), []);
}
