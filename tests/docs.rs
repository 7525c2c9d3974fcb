//! What README, CONTRIBUTING and manual say about the repository: paths, tests, defaults and bounds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SOURCE: &str = "../crates/shardkeeper/src";

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README, CONTRIBUTING, the root of the documentation and the chapters of the manual: the name and the text without `//!`.
fn documents() -> BTreeMap<String, String> {
    let mut paths: Vec<PathBuf> = ["../README.md", "../CONTRIBUTING.md"].map(PathBuf::from).into();
    paths.push(Path::new(SOURCE).join("lib.rs"));
    for entry in fs::read_dir(Path::new(SOURCE).join("manual")).expect("the manual is there") {
        paths.push(entry.expect("the entry can be read").path());
    }
    let document = |path: PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = read(&path);
        let rust = path.extension().is_some_and(|extension| extension == "rs");
        let text = if rust {
            let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
            lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
        } else {
            text
        };
        (name, text)
    };
    paths.into_iter().map(document).collect()
}

/// The text without its blocks of code, and those blocks that are commands for a shell.
fn prose_and_commands(text: &str) -> (String, String) {
    let (mut prose, mut commands, mut fence) = (String::new(), String::new(), None);
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.to_owned()) };
            continue;
        }
        match fence.as_deref() {
            None => prose.extend([line, "\n"]),
            Some("sh") => commands.extend([line, "\n"]),
            Some(_) => {}
        }
    }
    (prose, commands)
}

/// What stands between backticks. A span can go on in the next line of its paragraph.
fn spans(prose: &str) -> Vec<String> {
    let paragraphs = prose.split("\n\n").flat_map(|paragraph| {
        let rows = paragraph.starts_with('|');
        if rows { paragraph.split('\n').collect() } else { vec![paragraph] }
    });
    paragraphs
        .flat_map(|part| part.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")))
        .collect()
}

fn is_path(word: &str) -> bool {
    const EXTENSIONS: [&str; 6] = [".rs", ".md", ".csv", ".toml", ".yml", ".svg"];
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let folder = word.contains('/') && word.starts_with(|c: char| c.is_ascii_alphabetic());
    plain && (folder || EXTENSIONS.iter().any(|end| word.len() > end.len() && word.ends_with(end)))
}

/// Paths that the reader or a fuzzer makes, and words that only look like paths.
const NOT_OURS: [&str; 4] = ["Cargo.toml", "src/main.rs", "tests/fuzz/artifacts", "discord.js"];

/// A path that is named in a row of a table may be relative to the folder in the row's first cell.
#[test]
fn paths_that_the_documents_name_exist() {
    let (mut missing, mut found) = (Vec::new(), 0);
    let mut check = |document: &str, word: &str, folder: Option<&str>| {
        let word = word.trim_end_matches(['.', ',', ':']);
        if !is_path(word) || NOT_OURS.contains(&word) {
            return;
        }
        found += 1;
        let root = Path::new("..");
        let in_folder = folder.map(|folder| root.join(folder));
        let bases = [Some(root.to_owned()), in_folder.as_ref().map(|folder| folder.join("src")), in_folder];
        if !bases.into_iter().flatten().any(|base| base.join(word).exists()) {
            missing.push(format!("{document}: {word}"));
        }
    };
    for (name, text) in documents() {
        let (prose, commands) = prose_and_commands(&text);
        commands.split_whitespace().for_each(|word| check(&name, word, None));
        for part in prose.split_inclusive('\n') {
            let first = part.starts_with('|').then(|| spans(part).into_iter().next()).flatten();
            if let Some(folder) = first.filter(|first| is_path(first)) {
                spans(part)
                    .iter()
                    .flat_map(|span| span.split_whitespace())
                    .for_each(|word| check(&name, word, Some(&folder)));
            }
        }
        let others: String = prose
            .split_inclusive('\n')
            .filter(|line| {
                !(line.starts_with('|') && spans(line).first().is_some_and(|first| is_path(first)))
            })
            .collect();
        spans(&others)
            .iter()
            .flat_map(|span| span.split_whitespace())
            .for_each(|word| check(&name, word, None));
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if name.ends_with(".md") {
                check(&name, link.split('#').next().unwrap_or_default(), None);
            }
        }
    }
    assert!(missing.is_empty(), "paths that do not exist: {missing:#?}");
    assert!(found > 60, "only {found} paths were found");
}

/// Every source file of the repository, except what is built.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn each_invariant_names_tests_that_exist() {
    let mut files = Vec::new();
    for folder in ["../crates", ".", "../examples"] {
        sources(Path::new(folder), &mut files);
    }
    let code: Vec<String> = files.iter().map(read).collect();
    let chapter = documents().remove("_01_architecture.rs").expect("the chapter is there");
    let section = chapter.split("\n# Invariants\n").nth(1).and_then(|rest| rest.split("\n# ").next());
    let section = section.expect("the chapter has the invariants");
    let mut invariants: Vec<String> = Vec::new();
    for line in section.lines() {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            invariants.push(line.to_owned());
        } else if let Some(last) = invariants.last_mut() {
            last.extend([" ", line.trim()]);
        }
    }
    assert_eq!(invariants.len(), 11);
    for invariant in invariants {
        let tests = invariant.split_once(" Tests: ").unwrap_or_else(|| panic!("no tests: {invariant}")).1;
        let tests = spans(tests);
        assert!(!tests.is_empty(), "no tests: {invariant}");
        for test in tests {
            let function = format!("fn {test}(");
            assert!(code.iter().any(|text| text.contains(&function)), "no test {test}, of: {invariant}");
        }
    }
}

#[test]
fn the_glossary_is_short_and_sorted() {
    let manual = documents().remove("mod.rs").expect("the manual is there");
    let words: Vec<&str> = manual
        .split("\n# Glossary\n")
        .nth(1)
        .expect("the manual has a glossary")
        .lines()
        .filter_map(|line| line.strip_prefix("| **")?.split("**").next())
        .collect();
    assert!((15..=25).contains(&words.len()), "{} words", words.len());
    assert!(words.is_sorted(), "{words:?}");
}

/// The value of a constant as the source has it, up to the semicolon.
fn constant(file: &str, name: &str) -> String {
    let text = read(Path::new("../crates").join(file));
    let declaration = format!("const {name}: ");
    let rest = text.split_once(&declaration).unwrap_or_else(|| panic!("{file} has no {name}")).1;
    let value = rest.split_once(';').and_then(|(declared, _)| declared.split_once(" = "));
    value.unwrap_or_else(|| panic!("{name} of {file} has no value")).1.to_owned()
}

/// `64 * 1024`, `1 << 20` and the like.
fn number(value: &str) -> u64 {
    let literal = |text: &str| text.trim().replace('_', "").trim_end_matches(".0").parse::<u64>();
    let number = |text: &str| literal(text).unwrap_or_else(|_| panic!("not a number: {value}"));
    match value.split_once("<<") {
        Some((left, right)) => number(left) << number(right),
        None => value.split('*').map(number).product(),
    }
}

/// A constant as the documents write it.
fn shown(value: &str, unit: &str) -> String {
    let inner = |start: &str| value.split_once(start).and_then(|(_, rest)| rest.split(')').next());
    let time = inner("from_secs(").map(|secs| (number(secs), "s"));
    match time.or_else(|| inner("from_millis(").map(|ms| (number(ms), "ms"))) {
        Some((secs, "s")) if unit == "min" => format!("{} min", secs / 60),
        Some((count, unit)) => format!("{count} {unit}"),
        None => {
            let count = number(inner("NonZeroU32::new(").unwrap_or(value));
            match unit {
                "KiB" => format!("{} KiB", count >> 10),
                "MiB" => format!("{} MiB", count >> 20),
                "," if count >= 1000 => {
                    let digits = count.to_string();
                    let (high, low) = digits.split_at(digits.len() - 3);
                    match high.split_at_checked(high.len().saturating_sub(3)) {
                        Some((highest, high)) if !highest.is_empty() => format!("{highest},{high},{low}"),
                        _ => format!("{high},{low}"),
                    }
                }
                _ => count.to_string(),
            }
        }
    }
}

#[test]
fn bounds_that_the_documents_quote_are_those_of_the_code() {
    let documents: BTreeMap<String, String> = documents()
        .into_iter()
        .map(|(name, text)| (name, text.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    let bounds = read("bounds.txt");
    for line in bounds.lines().filter(|line| !line.starts_with('#')) {
        let [document, source, quotation] = line.splitn(3, " :: ").collect::<Vec<_>>()[..] else {
            panic!("not a quotation: {line}")
        };
        let mut words = source.split(' ');
        let (file, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let quoted = quotation.replace("{}", &shown(&constant(file, name), words.next().unwrap_or_default()));
        assert!(documents[document].contains(&quoted), "{document} does not say {quoted:?}, as {name} does");
    }
}

/// `600 s`, `10 min`, `1024` and the like as one number.
fn amount(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let count: f64 = words.next()?.replace(',', "").parse().ok()?;
    Some(match words.next().unwrap_or_default() {
        "ms" => count / 1000.0,
        "min" => count * 60.0,
        "h" => count * 3600.0,
        "MiB" => count * f64::from(1 << 20),
        _ => count,
    })
}

/// The chapter on defaults is compared with the code beside it; whatever quotes a default is compared with that chapter:
/// a link to a setting with `: 10 s`, ` (10 s)` or `, 10 s` behind it.
#[test]
fn defaults_that_the_documents_quote_are_those_of_the_chapter_on_defaults() {
    let documents = documents();
    let mut defaults = BTreeMap::new();
    for row in documents["_06_defaults.rs"].lines().filter(|line| line.starts_with("| [`")) {
        let mut cells = row.split(" | ");
        let (Some(name), Some(value)) = (cells.next(), cells.next()) else { continue };
        let name = name.trim_start_matches("| [`").split('`').next().unwrap_or_default();
        // The default comes before the bounds.
        defaults.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let mut compared = 0;
    for (document, text) in documents.iter().filter(|(name, _)| *name != "_06_defaults.rs") {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (name, default) in &defaults {
            let field = name.rsplit("::").next().unwrap_or_default();
            let links = [format!("[`{name}`]"), format!("[`{field}`]({name})"), format!("`{name}`")];
            for rest in links.iter().flat_map(|link| text.split(link.as_str()).skip(1)) {
                let Some(rest) = [": ", " (", ", "].iter().find_map(|between| rest.strip_prefix(between))
                else {
                    continue;
                };
                let end = rest.find([')', '|', ',', ';', '.']).unwrap_or(rest.len());
                let Some(quoted) =
                    rest.starts_with(|c: char| c.is_ascii_digit()).then(|| amount(&rest[..end]))
                else {
                    continue;
                };
                compared += 1;
                // `128 and 512` has one value per class.
                let same = default.split(" and ").any(|value| amount(value) == quoted);
                assert!(same, "{document} quotes {name}: {:?}, not {default}", &rest[..end]);
            }
        }
    }
    assert!(compared >= 10, "only {compared} quotations were found");
    let readme = documents["README.md"].split_whitespace().collect::<Vec<_>>().join(" ");
    for (quotation, name) in README_QUOTES {
        let quoted = quotation.replace("{}", &defaults[*name]);
        assert!(readme.contains(&quoted), "README does not say {quoted:?}, as the chapter on defaults does");
    }
}

/// What README says of defaults without naming the setting.
const README_QUOTES: &[(&str, &str)] = &[
    ("within a deadline ({} by default)", "Builder::shutdown_timeout"),
    ("({} are kept by default)", "Builder::identify_reserve"),
];
