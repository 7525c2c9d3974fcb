//! Ids with the structure of Discord's, whose lowest bits name the kind of object; and the simulated time of
//! events.

/// Milliseconds from Discord's epoch (2015-01-01) to 2026-01-01, the time of the first id.
const FIRST_MS: u64 = 347_155_200_000;
/// Milliseconds from there to 2026-09-01T12:00Z, the time of the first event. Each further event is one
/// millisecond later. Objects of the initial guilds have ids from before that time, with room for 21 million
/// guilds.
const EVENTS_BEGIN_MS: u64 = 21_038_400_000;
/// The time of the first event in Unix seconds.
const EVENTS_BEGIN_SECONDS: u64 = 1_788_264_000;
/// The bot's own user, which is also its application.
pub(crate) const BOT: u64 = 104_694_319_306_248_192;
/// The distance between the first numbers of a guild and of the next one.
pub(crate) const PER_GUILD: u64 = 1000;

/// The kind of object that an id belongs to, stored in the lowest 22 bits.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Kind {
    Message = 1,
    Text = 2,
    Voice = 3,
    Role = 4,
    User = 5,
    Emoji = 6,
    Category = 7,
    Thread = 8,
    Sound = 9,
    Sticker = 10,
    Other = 11,
    Hidden = 12,
    Stage = 13,
    /// A direct channel; its id has the same time as the id of its user.
    Direct = 14,
}

/// The id of an object of this kind that was made `ms` milliseconds after the first id.
pub(crate) fn make(ms: u64, kind: Kind) -> u64 {
    ((FIRST_MS + ms) << 22) | kind as u64
}

/// The id of an object that this event creates. Events are numbered over the simulator's life.
pub(crate) fn made_by(event: u64, kind: Kind) -> u64 {
    make(EVENTS_BEGIN_MS + event, kind)
}

/// The `ms` that [`make`] got for an id of this kind; `None` for an id of another kind.
pub(crate) fn made_at(id: u64, kind: Kind) -> Option<u64> {
    (id & 0x3f_ffff == kind as u64).then_some(())?;
    (id >> 22).checked_sub(FIRST_MS)
}

/// The time of an event in Unix seconds.
pub(crate) fn seconds(event: u64) -> u64 {
    EVENTS_BEGIN_SECONDS + event / 1000
}

/// The time of an event as an ISO 8601 timestamp, as in Discord's objects.
pub(crate) fn timestamp(event: u64) -> String {
    let (seconds, ms) = (seconds(event), event % 1000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}000+00:00")
}

/// Converts days since 1970-01-01 to year, month and day: the usual calculation in eras of 400 years that
/// begin in March.
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

/// The id of a guild. The bits that decide the shard count up, so that any number of shards gets equal shares
/// (GW-227).
pub(crate) fn guild(place: u64) -> u64 {
    ((281_474_976 + place) << 22) | (place & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "2026-09-01T12:00:00.000000+00:00");
        assert_eq!(timestamp(12 * 3_600_000 + 1_234), "2026-09-02T00:00:01.234000+00:00");
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_454 + 365 + 365 + 59), (2028, 2, 29));
    }
}
