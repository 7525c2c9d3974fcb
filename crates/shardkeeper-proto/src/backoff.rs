//! Waiting times between attempts.

use std::time::Duration;

use crate::LONGEST_WAIT;

/// Exponential growth with jitter, up to a cap.
///
/// Attempt 0 does not wait. Attempt n waits between half of `base * 2^n` and all of it. The lower bound
/// ensures that an endpoint that closes each connection at once is contacted about once per second at first
/// (GW-153); with full jitter there would be bursts of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "users construct it")]
pub struct Backoff {
    /// The unit of growth: the first wait is between this and twice this.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait before attempt number `attempt`, counted from zero. `random` lies in `[0, 1)`. Never longer
    /// than [`LONGEST_WAIT`], whatever the cap.
    pub fn delay(self, attempt: u32, random: f64) -> Duration {
        if attempt == 0 {
            return Duration::ZERO;
        }
        let whole = self.base.saturating_mul(2_u32.saturating_pow(attempt)).min(self.cap).min(LONGEST_WAIT);
        whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cap_makes_a_wait_overflow() {
        let backoff = Backoff { base: Duration::MAX, cap: Duration::MAX };
        assert_eq!(backoff.delay(1, 1.0), LONGEST_WAIT);
    }

    #[test]
    fn gw_153_waits_grow_to_the_cap() {
        let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
        assert_eq!(backoff.delay(0, 0.9), Duration::ZERO);
        assert_eq!(backoff.delay(1, 0.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(3, 0.5), Duration::from_secs(6));
        for attempt in [6, 7, 31, 32, 40, u32::MAX] {
            assert_eq!(backoff.delay(attempt, 0.0), Duration::from_secs(30));
            assert!(backoff.delay(attempt, 1.0) <= Duration::from_secs(60));
        }
    }
}
