//! When a bot reshards, and how long each step may take.

use std::time::Duration;

use shardkeeper_proto::DurationError;

/// When a bot reshards, and how long each step of a reshard may take. Construct it with
/// [`on`](Self::on) or [`off`](Self::off), then set fields.
///
/// # The rule
///
/// Discord recommends one shard per 1000 guilds and allows 2500 (GW-229), so a recommendation also tells how
/// full the shards are: with a layout of `n` shards and a recommendation of `r`, they are at `40 × r / n`
/// percent of what is allowed. Right after a start or a reshard that is 40 %.
///
/// Acting on any change would cost one Identify per shard each time the bot grows by 1000 guilds. Waiting
/// until 80 % is risky: guilds are spread by chance, so the fullest shard is already at 86 % or more then; a
/// large reshard may have to wait a day for its Identifies; and as soon as a shard is over the limit, it
/// cannot identify again after it has lost its session (4011). The default of 60 % lets a bot grow by half
/// between two reshards, and again by two thirds until it would be too late.
///
/// Too many shards cost only connections, so the default merges below 20 %: after the bot has lost half of
/// its guilds. After a reshard in either direction the shards are at 40 % again, far from both limits, so a
/// recommendation that goes up and down a little never causes two reshards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReshardPolicy {
    /// Whether the bot reshards by itself: when the recommended shard count passes one of the two limits
    /// below, and when Discord refuses an Identify because the shard would have too many guilds (4011).
    pub automatic: bool,
    /// Fill level, in percent of 2500 guilds per shard, from which a higher recommendation is followed.
    /// Default: 60. Up to 40, any higher recommendation is followed.
    pub grow_at: u8,
    /// Fill level, in percent of 2500 guilds per shard, down to which a lower recommendation is followed.
    /// Default: 20. With 0 the bot never merges shards by itself; from 40 on, any lower recommendation is
    /// followed.
    pub shrink_at: u8,
    /// Identifies that a reshard leaves for shards that lose their sessions meanwhile. Default: 100, a tenth
    /// of what most bots get per day. At most half of the total counts, and never less than
    /// [`Builder::identify_reserve`](crate::Builder::identify_reserve).
    pub reserve: u32,
    /// Whether a reshard that needs more Identifies than are left waits for the next day between two groups.
    /// Default: `true`. Otherwise such a reshard is rejected.
    pub spread: bool,
    /// The number that the shard count of a large bot must be a multiple of, as Discord told its owner
    /// (GW-235). Counts are rounded up to a multiple. Default: 1. Discord's own recommendation always fits.
    pub large_bot_multiple: u32,
    /// How long a group may take until its new shards take over, in addition to the time that its Identifies
    /// need. After that the group is withdrawn. Default: 10 min.
    pub group_deadline: Duration,
    /// How long the old shards of a group stay after the take-over for requests that they have under way and
    /// for deliveries that are not acknowledged. Default: 60 s.
    pub drain_deadline: Duration,
    /// How long to wait between two groups. Default: none.
    pub pause: Duration,
    /// What happens to a group while the bot is in a voice channel of one of its guilds.
    pub voice: VoicePolicy,
}

/// What happens to a group while the bot is in a voice channel of one of its guilds: the voice state ends
/// with the session that joined (GW-244).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoicePolicy {
    /// Wait this long for the bot to leave. After that, the new shard joins the channel again, which
    /// interrupts the audio.
    MoveAfter(Duration),
    /// Reshard the other groups first, and this one once the bot has left. A reshard may then last as long as
    /// the bot is in a voice channel.
    Later,
}

/// Fill level of shards that follow the recommendation exactly, in percent: 1000 of 2500 guilds.
const RECOMMENDED_FILL: u64 = 40;

impl ReshardPolicy {
    /// Reshards by itself.
    pub const fn on() -> Self {
        Self {
            automatic: true,
            grow_at: 60,
            shrink_at: 20,
            reserve: 100,
            spread: true,
            large_bot_multiple: 1,
            group_deadline: Duration::from_secs(600),
            drain_deadline: Duration::from_secs(60),
            pause: Duration::ZERO,
            voice: VoicePolicy::MoveAfter(Duration::from_secs(300)),
        }
    }

    /// Reshards only on request. Default of a bot.
    pub const fn off() -> Self {
        Self { automatic: false, ..Self::on() }
    }

    /// Checks that no span is longer than a year.
    pub(crate) fn check(&self) -> Result<(), DurationError> {
        let any = Duration::ZERO;
        let some = Duration::from_secs(1);
        let voice = match self.voice {
            VoicePolicy::MoveAfter(wait) => wait,
            VoicePolicy::Later => Duration::ZERO,
        };
        for (setting, wait, min) in [
            ("reshard.group_deadline", self.group_deadline, some),
            ("reshard.drain_deadline", self.drain_deadline, any),
            ("reshard.pause", self.pause, any),
            ("reshard.voice", voice, any),
        ] {
            DurationError::check(setting, wait, min)?;
        }
        Ok(())
    }

    /// Whether a recommendation differs enough from the shard count to be followed.
    pub(crate) fn follows(&self, count: u32, recommended: u32) -> bool {
        let (count, recommended) = (u64::from(count), u64::from(recommended));
        // Compared without a division: fill = 40 × recommended / count.
        let fill = RECOMMENDED_FILL * recommended;
        let limit = |percent: u8| u64::from(percent) * count;
        recommended > count && fill >= limit(self.grow_at)
            || recommended < count && fill <= limit(self.shrink_at)
    }
}

impl Default for ReshardPolicy {
    fn default() -> Self {
        Self::off()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(grow_at: u8, shrink_at: u8) -> ReshardPolicy {
        ReshardPolicy { grow_at, shrink_at, ..ReshardPolicy::on() }
    }

    #[test]
    fn a_recommendation_is_followed_at_the_limits_and_not_before() {
        let default = ReshardPolicy::on();
        for (count, recommended, followed) in [
            (10, 10, false),
            (10, 14, false),
            (10, 15, true),
            (10, 6, false),
            (10, 5, true),
            (1, 2, true),
            (2, 1, true),
            (1, 1, false),
            (u32::MAX, 1, true),
            (1, u32::MAX, true),
        ] {
            assert_eq!(default.follows(count, recommended), followed, "{count} → {recommended}");
        }
        // The rule of discordeno, any change, and never down.
        assert!(!policy(80, 20).follows(10, 19) && policy(80, 20).follows(10, 20));
        assert!(policy(0, 100).follows(10, 11) && policy(0, 100).follows(10, 9));
        assert!(!policy(60, 0).follows(10, 1));
    }

    proptest! {
        /// Following a recommendation leads to a layout from which small changes lead nowhere else.
        #[test]
        fn a_recommendation_that_goes_up_and_down_causes_no_second_reshard(
            count in 1_u32..5000, recommended in 5_u32..5000, percent in -20_i64..=20
        ) {
            let default = ReshardPolicy::on();
            prop_assume!(default.follows(count, recommended));
            let next = i64::from(recommended) * (100 + percent) / 100;
            let next = u32::try_from(next).unwrap();
            prop_assert!(!default.follows(recommended, next), "{} → {} → {}", count, recommended, next);
        }
    }

    #[test]
    fn spans_have_a_limit() {
        assert!(ReshardPolicy::on().check().is_ok() && ReshardPolicy::off().check().is_ok());
        let year = Duration::from_secs(2 * 366 * 24 * 3600);
        for policy in [
            ReshardPolicy { group_deadline: Duration::ZERO, ..ReshardPolicy::on() },
            ReshardPolicy { drain_deadline: year, ..ReshardPolicy::on() },
            ReshardPolicy { pause: year, ..ReshardPolicy::on() },
            ReshardPolicy { voice: VoicePolicy::MoveAfter(year), ..ReshardPolicy::on() },
        ] {
            let error = policy.check().unwrap_err().to_string();
            assert!(error.starts_with("reshard."), "{error}");
        }
    }
}
