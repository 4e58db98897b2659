//! `connection_throttle_*`: how fast sessions are opened and continued.

use crate::config::ConnectionThrottle;

/// A token bucket, and in front of it a probability with which connect requests are refused that rises while the
/// bucket is empty (BLUE). Without a number of tokens, nobody is refused.
#[derive(Debug)]
pub(crate) struct Throttle {
    options: ConnectionThrottle,
    tokens: u32,
    filled_ms: u64,
    frozen_ms: u64,
    drop_probability: f64,
}

impl Throttle {
    pub(crate) fn new(options: ConnectionThrottle) -> Self {
        let tokens = options.tokens.unwrap_or(0);
        Throttle { options, tokens, filled_ms: 0, frozen_ms: 0, drop_probability: 0.0 }
    }

    /// Whether a connect request is let through at this time (monotonic ms). `renew`: it continues a session.
    /// `random` is between 0 and 1.
    pub(super) fn admits(&mut self, now_ms: u64, renew: bool, random: f64) -> bool {
        let Some(max_tokens) = self.options.tokens else { return true };
        let fill_ms = u64::from(self.options.fill_time_ms.max(1));
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        if passed_ms > fill_ms {
            let refill = passed_ms.saturating_mul(u64::from(self.options.fill_count)) / fill_ms;
            let tokens = u64::from(self.tokens).saturating_add(refill).min(u64::from(max_tokens));
            self.tokens = tokens as u32;
            self.filled_ms = now_ms;
        }
        if let Some(freeze_ms) = self.options.freeze_time_ms {
            self.adapt(now_ms, u64::from(freeze_ms), max_tokens);
            if random < self.drop_probability {
                return false;
            }
        }
        let needed = match self.options.weights {
            Some(weights) if renew => weights.renew,
            Some(weights) => weights.global,
            None => 1,
        };
        match self.tokens.checked_sub(needed) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Moves the probability, at most once per freeze time.
    fn adapt(&mut self, now_ms: u64, freeze_ms: u64, max_tokens: u32) {
        if now_ms.saturating_sub(self.frozen_ms) <= freeze_ms {
            return;
        }
        self.frozen_ms = now_ms;
        let used = max_tokens - self.tokens;
        if used == max_tokens {
            self.drop_probability = (self.drop_probability + self.options.drop_increase).min(1.0);
        } else if f64::from(used) <= (f64::from(max_tokens) * self.options.decrease_ratio).round() {
            self.drop_probability = (self.drop_probability - self.options.drop_decrease).max(0.0);
        }
    }

    /// The probability at the moment.
    pub(crate) fn drop_probability(&self) -> f64 {
        self.drop_probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionWeights;

    fn options() -> ConnectionThrottle {
        ConnectionThrottle {
            tokens: Some(4),
            fill_time_ms: 10,
            fill_count: 1,
            freeze_time_ms: None,
            drop_increase: 0.5,
            drop_decrease: 0.25,
            decrease_ratio: 0.5,
            weights: None,
        }
    }

    #[test]
    fn the_bucket_empties_and_fills() {
        let mut throttle = Throttle::new(options());
        let taken =
            |throttle: &mut Throttle, now_ms| (0..10).filter(|_| throttle.admits(now_ms, false, 0.5)).count();
        assert_eq!(taken(&mut throttle, 0), 4);
        assert_eq!(taken(&mut throttle, 10), 0);
        assert_eq!(taken(&mut throttle, 30), 3);
        assert_eq!(taken(&mut throttle, 10_000), 4, "no fuller than full");
    }

    #[test]
    fn weights_tell_new_sessions_from_old_ones() {
        let weights = Some(SessionWeights { global: 3, renew: 1, local: 1 });
        let mut throttle = Throttle::new(ConnectionThrottle { weights, ..options() });
        assert!(throttle.admits(0, false, 0.5));
        assert!(!throttle.admits(0, false, 0.5));
        assert!(throttle.admits(0, true, 0.5));
        assert!(!throttle.admits(0, true, 0.5));
    }

    #[test]
    fn an_empty_bucket_raises_the_probability_and_a_full_one_lowers_it() {
        let options = ConnectionThrottle { freeze_time_ms: Some(1), fill_count: 0, ..options() };
        let mut throttle = Throttle::new(options);
        for _ in 0..4 {
            assert!(throttle.admits(0, false, 0.9));
        }
        for (now_ms, probability) in [(2, 0.5), (3, 0.5), (4, 1.0), (8, 1.0)] {
            assert!(!throttle.admits(now_ms, false, 0.9));
            assert_eq!(throttle.drop_probability(), probability);
        }
        throttle.tokens = 3;
        assert!(!throttle.admits(10, false, 0.1));
        assert_eq!(throttle.drop_probability(), 0.75);
    }

    #[test]
    fn nobody_is_refused_without_tokens() {
        let mut throttle = Throttle::new(ConnectionThrottle { tokens: None, ..options() });
        assert!((0..1000).all(|_| throttle.admits(0, false, 0.0)));
    }
}
