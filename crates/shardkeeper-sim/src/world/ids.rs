//! Ids that look like Discord's, each telling what it belongs to, and the times that go with them.

/// Milliseconds from Discord's epoch to 2026-01-01, where made-up ids begin.
const FIRST_MS: u64 = 347_155_200_000;
/// Milliseconds from there to 2026-09-01T12:00Z, when the simulated events begin: one each millisecond. What exists
/// before has an id from before; there is room for 21 million guilds.
const EVENTS_BEGIN_MS: u64 = 21_038_400_000;
/// The same in Unix seconds.
const EVENTS_BEGIN_SECONDS: u64 = 1_788_264_000;
/// The bot's own user, which is also its application.
pub(crate) const BOT: u64 = 104_694_319_306_248_192;
/// What lies between the first ids of one guild and of the next.
pub(crate) const PER_GUILD: u64 = 1000;

/// What an id belongs to; it stands in the lowest bits.
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
    /// A direct channel, made at the same time as its user.
    Direct = 14,
}

/// The id that was made at that point of the simulator's own time.
pub(crate) fn make(ms: u64, kind: Kind) -> u64 {
    ((FIRST_MS + ms) << 22) | kind as u64
}

/// The id of something that this event makes. Events are numbered over the simulator's life.
pub(crate) fn made_by(event: u64, kind: Kind) -> u64 {
    make(EVENTS_BEGIN_MS + event, kind)
}

/// When an id of this kind was made; `None` for an id of another kind.
pub(crate) fn made_at(id: u64, kind: Kind) -> Option<u64> {
    (id & 0x3f_ffff == kind as u64).then_some(())?;
    (id >> 22).checked_sub(FIRST_MS)
}

/// When this event happens, in Unix seconds.
pub(crate) fn seconds(event: u64) -> u64 {
    EVENTS_BEGIN_SECONDS + event / 1000
}

/// When this event happens, as Discord writes it.
pub(crate) fn timestamp(event: u64) -> String {
    let (seconds, ms) = (seconds(event), event % 1000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}000+00:00")
}

/// Year, month and day of a day since 1970, by the well-known calculation in eras of 400 years that begin in March.
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

/// Guilds follow each other in the part that decides the shard, so that any number of shards gets about the same
/// share (GW-227).
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
