//! Parses intents from command-line options.

use shardkeeper::Intents;

/// Parses comma-separated names of intents, or a number with their bits.
pub(crate) fn intents(text: &str) -> Result<Intents, String> {
    if let Ok(bits) = text.parse() {
        return Intents::from_bits(bits)
            .ok_or_else(|| format!("{bits} has bits that no intent has{}", names()));
    }
    text.split(',').map(|name| intent(name.trim())).collect()
}

fn intent(name: &str) -> Result<Intents, String> {
    match name.to_ascii_uppercase().as_str() {
        "ALL" => Ok(Intents::all()),
        "UNPRIVILEGED" => Ok(Intents::UNPRIVILEGED),
        upper => Intents::from_name(upper).ok_or_else(|| format!("there is no intent {name:?}{}", names())),
    }
}

fn names() -> String {
    let names: Vec<&str> = Intents::all().iter_names().map(|(name, _)| name).collect();
    format!(
        "\nThe intents are: {}.\n`all` means all of them, `unprivileged` all except those that must be \
         enabled in the developer portal ({}).",
        names.join(", "),
        Intents::PRIVILEGED.to_string().replace(" | ", ", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_by_name_and_number() {
        assert_eq!(intents("guilds, GUILD_MESSAGES"), Ok(Intents::GUILDS | Intents::GUILD_MESSAGES));
        assert_eq!(intents("513"), Ok(Intents::GUILDS | Intents::GUILD_MESSAGES));
        assert_eq!(intents("0"), Ok(Intents::empty()));
        assert_eq!(intents("all"), Ok(Intents::all()));
        assert_eq!(
            intents("Unprivileged,MESSAGE_CONTENT"),
            Ok(Intents::UNPRIVILEGED | Intents::MESSAGE_CONTENT)
        );
        for (wrong, culprit) in [
            ("GUILDZ", r#"there is no intent "GUILDZ""#),
            ("GUILDS,", r#"there is no intent """#),
            // GW-187: bit 17 belongs to no intent of bots.
            ("131072", "131072 has bits that no intent has"),
        ] {
            let error = intents(wrong).unwrap_err();
            assert!(error.starts_with(culprit) && error.contains("GUILDS, GUILD_MEMBERS, "), "{error}");
        }
    }
}
