//! Ids that look like Discord's, each telling what it belongs to.

/// Milliseconds of 2026-01-01 since Discord's epoch, where made-up ids begin.
const FIRST_MS: u64 = 347_155_200_000;
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
}

/// The id that was made at that point of the simulator's own time.
pub(crate) fn make(ms: u64, kind: Kind) -> u64 {
    ((FIRST_MS + ms) << 22) | kind as u64
}

/// When an id of this kind was made; `None` for an id of another kind.
pub(crate) fn made_at(id: u64, kind: Kind) -> Option<u64> {
    (id & 0x3f_ffff == kind as u64).then_some(())?;
    (id >> 22).checked_sub(FIRST_MS)
}

/// Guilds follow each other in the part that decides the shard, so that any number of shards gets about the same
/// share (GW-227).
pub(crate) fn guild(place: u64) -> u64 {
    ((281_474_976 + place) << 22) | (place & 0xffff)
}
