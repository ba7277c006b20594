//! KEDA's lag rule, as a Horizontal Pod Autoscaler with its default behaviour applies it.
//!
//! From its documentation: every 15 s `ceil(lag / threshold)` pods are desired, nothing changes
//! within a tenth of the target, at most 4 pods or as many as there are come at once, and what
//! goes is held up by the largest wish of 300 s. KEDA itself starts the first pod once there is
//! lag, and takes the last one away once there was none for its cooldown of 300 s.

use crate::scaling::{
    Limits,
    number::{ratio, real},
};

/// Pause between two looks, in s.
pub(super) const POLL_S: u64 = 15;
/// Wishes within this time hold up a scale-down, in s.
const STABLE_S: u64 = 300;
/// Without lag for so long, the last pod goes, in s.
const COOLDOWN_S: u64 = 300;
/// Nothing changes within this part of the target.
const TOLERANCE: f64 = 0.1;
/// So many pods may come at once, even where there are fewer.
const PODS_AT_ONCE: u32 = 4;

/// What it keeps between looks.
#[derive(Debug, Default)]
pub(super) struct Keda {
    /// Pods asked for.
    replicas: u32,
    /// Wishes, and when.
    wishes: Vec<(u64, u32)>,
    /// When there was lag the last time.
    active_at: Option<u64>,
}

impl Keda {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            replicas: limits.min,
            wishes: Vec::new(),
            active_at: None,
        }
    }

    /// Pods asked for at a second.
    pub(super) fn look(&mut self, limits: &Limits, second: u64, lag: u64) -> u32 {
        if !second.is_multiple_of(POLL_S) {
            return self.replicas;
        }
        if lag > 0 {
            self.active_at = Some(second);
        }
        if self.replicas == 0 {
            self.replicas = u32::from(lag > 0).min(limits.max);
            return self.replicas;
        }
        let is_cold = self
            .active_at
            .is_none_or(|at| second.saturating_sub(at) >= COOLDOWN_S);
        if lag == 0 && limits.min == 0 && is_cold {
            self.replicas = 0;
            self.wishes.clear();
            return 0;
        }
        let wish = self.desired(limits, lag);
        self.wishes.push((second, wish));
        self.wishes
            .retain(|(at, _)| second.saturating_sub(*at) <= STABLE_S);
        let at_once = self.replicas.saturating_mul(2);
        let at_once = at_once.max(self.replicas.saturating_add(PODS_AT_ONCE));
        let held = self.wishes.iter().map(|(_, wish)| *wish).max();
        self.replicas = if wish > self.replicas {
            wish.min(at_once)
        } else {
            held.unwrap_or(wish).min(self.replicas)
        };
        self.replicas
    }

    fn desired(&self, limits: &Limits, lag: u64) -> u32 {
        let threshold = u64::from(limits.lag_threshold.max(1));
        let target = threshold.saturating_mul(self.replicas.into());
        let apart = (ratio(real(lag), real(target)) - 1.0).abs();
        let wish = if apart <= TOLERANCE {
            self.replicas
        } else {
            u32::try_from(lag.div_ceil(threshold)).unwrap_or(u32::MAX)
        };
        // The autoscaler keeps one pod; to none and from none it goes by KEDA.
        wish.max(limits.min).max(1).min(limits.max)
    }
}

#[cfg(test)]
mod tests {
    use super::Keda;
    use crate::scaling::Limits;

    const LIMITS: Limits = Limits {
        min: 0,
        max: 20,
        lag_threshold: 10,
    };

    #[test]
    fn the_first_pod_comes_with_the_first_lag_and_goes_after_the_cooldown() {
        let mut keda = Keda::new(&LIMITS);
        assert_eq!(keda.look(&LIMITS, 0, 0), 0);
        assert_eq!(keda.look(&LIMITS, 7, 5), 0);
        assert_eq!(keda.look(&LIMITS, 15, 5), 1);
        assert_eq!(keda.look(&LIMITS, 300, 0), 1);
        assert_eq!(keda.look(&LIMITS, 315, 0), 0);
    }

    #[test]
    fn pods_come_by_steps_and_within_the_tolerance_none_does() {
        let mut keda = Keda::new(&LIMITS);
        let asked = [(0, 10), (15, 150), (30, 150), (45, 150), (60, 160)];
        let replicas = asked.map(|(second, lag)| keda.look(&LIMITS, second, lag));
        assert_eq!(replicas, [1, 5, 10, 15, 15]);
        assert_eq!(keda.look(&LIMITS, 315, 0), 15);
        assert_eq!(keda.look(&LIMITS, 345, 0), 15);
        assert_eq!(keda.look(&LIMITS, 375, 0), 0);
    }
}
