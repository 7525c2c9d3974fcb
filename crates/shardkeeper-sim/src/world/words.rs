//! Random words for the text of names and messages.

use fastrand::Rng;

const WORDS: [&str; 24] = [
    "raid", "tonight", "anyone", "patch", "notes", "ship", "build", "green", "coffee", "deploy", "noon",
    "lost", "found", "shard", "queue", "voice", "later", "works", "again", "why", "because", "nice", "gg",
    "brb",
];

/// `count` random words, separated by spaces.
pub(super) fn words(count: usize, random: &mut Rng) -> String {
    let words: Vec<&str> = (0..count).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    words.join(" ")
}
