//! Negotiation of the session timeout.

/// The session timeouts that a server grants, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutLimits {
    /// The shortest one; what a client gets that asks for 0 or less.
    pub min_ms: i32,
    /// The longest one.
    pub max_ms: i32,
}

impl TimeoutLimits {
    /// The defaults for a tick time: 2 and 20 ticks.
    pub fn from_tick(tick_ms: i32) -> Self {
        TimeoutLimits { min_ms: tick_ms.saturating_mul(2), max_ms: tick_ms.saturating_mul(20) }
    }

    /// What a client gets that asks for `requested_ms`. As in Apache the longest wins if the limits contradict
    /// each other.
    pub fn negotiate(self, requested_ms: i32) -> i32 {
        requested_ms.max(self.min_ms).min(self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        let limits = TimeoutLimits::from_tick(2_000);
        for (requested, granted) in [
            (0, 4_000),
            (-1, 4_000),
            (i32::MIN, 4_000),
            (3_999, 4_000),
            (4_000, 4_000),
            (4_001, 4_001),
            (40_000, 40_000),
            (40_001, 40_000),
            (i32::MAX, 40_000),
        ] {
            assert_eq!(limits.negotiate(requested), granted, "{requested}");
        }
        assert_eq!(TimeoutLimits::from_tick(i32::MAX).max_ms, i32::MAX);
        assert_eq!(TimeoutLimits { min_ms: 9, max_ms: 5 }.negotiate(1), 5);
    }
}
