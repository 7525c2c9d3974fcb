//! The rules of the Gateway: `docs/gateway-rules.md` says what each of the 303 rules demands, and `rules.csv`
//! lists one rule and one of its tests per line, or a rule and the reason why it has no test (or is only
//! partly tested).
//!
//! Each test of the table cites its rules, in its name or at the assertion. A citation shows which line is
//! meant to check the rule; it does not prove that the line does. Only a mutant that breaks the rule and
//! fails the test proves that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const RULES: usize = 303;
/// The folders with the tests of each package.
const PACKAGES: [(&str, &str); 7] = [
    ("shardkeeper", "../crates/shardkeeper"),
    ("shardkeeper-clients", "clients"),
    ("shardkeeper-proto", "../crates/shardkeeper-proto"),
    ("shardkeeper-sim", "../crates/shardkeeper-sim"),
    ("shardkeeper-tests", "."),
    ("shardkeeper-transport", "../crates/shardkeeper-transport"),
    ("shardkeeperd", "../crates/shardkeeperd"),
];
/// The only addresses that a source of a rule may have.
const OFFICIAL: [&str; 2] =
    ["https://docs.discord.com/developers/", "https://github.com/discord/discord-api-docs/issues/"];

/// An entry of the book.
struct Rule {
    number: usize,
    level: String,
    sentence: String,
    /// Names of links, as `[Resuming]`, and the words *staff*, *practice* and *derived*.
    sources: Vec<String>,
}

/// The lines of the table about a rule.
#[derive(Default)]
struct Row {
    tests: BTreeSet<String>,
    /// The reasons why tests are missing.
    whys: Vec<String>,
}

fn book() -> String {
    fs::read_to_string("../docs/gateway-rules.md").expect("the book is there")
}

/// The entries of the book in its order:
/// `- <a id="gw-001"></a>**GW-001** · FACT · What the rule says. *[Link], practice*`.
fn rules(book: &str) -> Vec<Rule> {
    let mut entries: Vec<String> = Vec::new();
    let mut in_entry = false;
    for line in book.lines() {
        if line.starts_with("- <a id=") {
            entries.push(line.to_owned());
            in_entry = true;
        } else if let Some(more) = line.strip_prefix("  ").filter(|_| in_entry) {
            let entry = entries.last_mut().expect("a line follows its entry");
            *entry += " ";
            *entry += more;
        } else {
            in_entry = false;
        }
    }
    entries.iter().map(|entry| rule(entry).unwrap_or_else(|| panic!("not an entry: {entry}"))).collect()
}

fn rule(entry: &str) -> Option<Rule> {
    let (anchor, rest) = entry.strip_prefix("- <a id=\"gw-")?.split_once("\"></a>**GW-")?;
    let (number, rest) = rest.split_once("** · ")?;
    let (level, rest) = rest.split_once(" · ")?;
    let (sentence, sources) = rest.strip_suffix('*')?.rsplit_once(" *")?;
    (anchor == number && number.len() == 3).then_some(())?;
    Some(Rule {
        number: number.parse().ok()?,
        level: level.to_owned(),
        sentence: sentence.to_owned(),
        sources: sources.split(", ").map(str::to_owned).collect(),
    })
}

/// The links that the book defines: `[name]: address`.
fn links(book: &str) -> BTreeMap<&str, &str> {
    book.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once(": ")).collect()
}

/// The lines of the table without its heading.
fn lines() -> Vec<String> {
    let text = fs::read_to_string("rules.csv").expect("the table is there");
    let (heading, lines) = text.split_once('\n').expect("a heading");
    assert_eq!(heading, "rule,test,why");
    lines.lines().map(str::to_owned).collect()
}

fn table() -> BTreeMap<usize, Row> {
    let mut table: BTreeMap<usize, Row> = BTreeMap::new();
    for line in lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [rule, test, why] = fields[..] else { panic!("not three fields: {line}") };
        let number = rule.strip_prefix("GW-").filter(|digits| digits.len() == 3);
        let rule = number.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no rule: {line}"));
        assert!(test.is_empty() != why.is_empty(), "a line has either a test or a reason: {line}");
        let row = table.entry(rule).or_default();
        if test.is_empty() {
            row.whys.push(why.to_owned());
        } else {
            row.tests.insert(test.to_owned());
        }
    }
    table
}

/// The source of every test by `package::name`. Tests of one name in different files of a package count as
/// one.
fn tests() -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (package, folder) in PACKAGES {
        for text in files(Path::new(folder)) {
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
    all
}

/// The text of every Rust file of the package in `folder`.
fn files(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            // Skip other packages and generated files.
            let is_other = folder == Path::new(".") && matches!(name, "clients" | "fuzz");
            if name != "target" && !is_other {
                texts.extend(files(&path));
            }
        } else if name.ends_with(".rs") {
            texts.push(fs::read_to_string(&path).expect("it is text"));
        }
    }
    texts
}

/// The function whose `fn` is in line `at`, with the comments and attributes directly above. `rustfmt` ends
/// it with the first line that is only a brace, indented as the `fn` is.
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
fn every_rule_has_its_sentence_and_its_source() {
    let book = book();
    let rules = rules(&book);
    assert_eq!(rules.iter().map(|rule| rule.number).collect::<Vec<_>>(), (1..=RULES).collect::<Vec<_>>());
    let links = links(&book);
    for Rule { number, level, sentence, sources } in &rules {
        assert!(matches!(level.as_str(), "MUST" | "SHOULD" | "FACT"), "GW-{number:03}: {level}");
        let is_sentence = sentence.split_whitespace().count() >= 4 && sentence.ends_with('.');
        assert!(is_sentence, "GW-{number:03} has no sentence: {sentence}");
        for source in sources {
            let is_known = matches!(source.as_str(), "staff" | "practice" | "derived")
                || links.contains_key(source.as_str());
            assert!(is_known, "GW-{number:03}: {source} is neither a link of the book nor a kind of source");
        }
    }
    let used: BTreeSet<&str> = rules.iter().flat_map(|rule| &rule.sources).map(String::as_str).collect();
    for (link, address) in links {
        assert!(used.contains(link), "no rule uses the link {link}");
        assert!(OFFICIAL.iter().any(|start| address.starts_with(start)), "{link}: {address}");
    }
}

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let table = table();
    assert_eq!(table.keys().copied().collect::<Vec<_>>(), (1..=RULES).collect::<Vec<_>>());
    let known = tests();
    for (rule, row) in &table {
        assert!(row.whys.len() <= 1, "GW-{rule:03} has more than one reason: {:?}", row.whys);
        for test in &row.tests {
            assert!(known.contains_key(test), "GW-{rule:03} names {test}, which does not exist");
        }
    }
}

/// The order prevents merge conflicts: branches that add different lines rarely touch the same place.
#[test]
fn the_table_is_sorted() {
    let lines = lines();
    let wrong = lines.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(wrong, None, "sort the lines below the heading by bytes: LC_ALL=C sort -u");
}

#[test]
fn every_test_that_names_a_rule_is_in_the_table() {
    let table = table();
    for test in tests().keys() {
        for rule in named(test) {
            let row = table.get(&rule).unwrap_or_else(|| panic!("{test}: there is no rule {rule}"));
            assert!(row.tests.contains(test), "add this line to the table: GW-{rule:03},{test},");
        }
    }
}

#[test]
fn every_test_cites_the_rules_that_it_is_in_the_table_for() {
    let sources = tests();
    let mut missing = Vec::new();
    for (rule, row) in table() {
        let citation = format!("GW-{rule:03}");
        for test in &row.tests {
            let is_cited = sources.get(test).is_some_and(|source| source.contains(&citation));
            if !is_cited && !named(test).contains(&rule) {
                missing.push(format!("{test}: {citation}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not cited; add the number at the assertion, or remove the line from the table: {missing:#?}"
    );
}

/// Comments must not only cite numbers, which readers would have to look up; half a sentence says what the
/// rule demands.
#[test]
fn comments_say_what_the_rules_that_they_cite_demand() {
    let examples = ("examples", "../examples");
    let texts = PACKAGES.iter().chain([&examples]).flat_map(|(_, folder)| files(Path::new(folder)));
    for text in texts {
        for number in text.split("GW-").skip(1).filter_map(|rest| rest.get(..3)?.parse::<usize>().ok()) {
            assert!((1..=RULES).contains(&number), "there is no rule GW-{number:03}");
        }
        for comment in comments(&text) {
            assert!(!is_bare(&comment), "say what the rule demands:{comment}");
        }
    }
}

/// Each run of lines that are comments.
fn comments(text: &str) -> Vec<String> {
    let mut comments = vec![String::new()];
    for line in text.lines() {
        let comment = line.trim_start().strip_prefix("//").map(|rest| rest.trim_start_matches(['/', '!']));
        match comment {
            Some(comment) => {
                comments.last_mut().expect("one is there").push_str(&format!(" {}", comment.trim()))
            }
            None => comments.push(String::new()),
        }
    }
    comments
}

/// Whether a comment cites rules and says nothing else.
fn is_bare(comment: &str) -> bool {
    let mut words = comment.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    let is_citation = |word: &str| matches!(word, "GW" | "and" | "to") || word.parse::<u16>().is_ok();
    comment.contains("GW-") && words.all(is_citation)
}

/// The book explains `gw_018_…`, but nothing would explain `b4_…`.
#[test]
fn no_test_has_a_prefix_without_a_key() {
    for test in tests().keys() {
        let name = test.split("::").nth(1).unwrap_or_default();
        let prefix = name.split('_').next().unwrap_or_default();
        let is_key = prefix.len() > 1 && prefix[1..].bytes().all(|byte| byte.is_ascii_digit());
        assert!(!is_key, "{test}: nobody knows what {prefix} is; name what the test shows");
    }
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
fn entries_of_the_book_are_read_whole() {
    let book = "text\n\n- <a id=\"gw-001\"></a>**GW-001** · MUST · Send `a *b*`\n  and wait. *[A b], staff*\n\n  more\n";
    let [Rule { number: 1, level, sentence, sources }] = &rules(book)[..] else { panic!("one rule") };
    assert_eq!((level.as_str(), sentence.as_str()), ("MUST", "Send `a *b*` and wait."));
    assert_eq!(sources, &["[A b]", "staff"]);
    assert!(rule("- <a id=\"gw-002\"></a>**GW-001** · MUST · Send. *staff*").is_none(), "another anchor");
    assert!(rule("- <a id=\"gw-001\"></a>**GW-001** · MUST · Send.").is_none(), "no source");
}

#[test]
fn bare_citations_are_recognised() {
    assert_eq!(comments("/// a\n//! b\nfn x() {}\n    // c\n"), [" a b", " c"].map(str::to_owned));
    assert!(is_bare(" GW-001, GW-003 to GW-005."));
    assert!(!is_bare(" GW-001: one guild per request."));
    assert!(!is_bare(" 5 and 6"));
}

#[test]
fn names_of_tests_are_read_as_they_are_meant() {
    assert_eq!(named("p::gw_018_any_order"), [18]);
    assert_eq!(named("p::gw_040_041_x"), [40, 41]);
    assert_eq!(named("p::gw_209_to_212_x"), [209, 210, 211, 212]);
    assert_eq!(named("p::gw_263_to_264_266_x"), [263, 264, 266]);
    assert_eq!(named("p::close_codes"), []);
}
