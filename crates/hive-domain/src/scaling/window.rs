//! When a wish is acted upon: windows, steps and pauses.
//!
//! More consumers come once the wish held through the whole window up, so the smallest of it
//! counts; fewer once it held through the window down, so the largest of it counts. That alone
//! keeps a load whose waves are shorter than the window from starting and stopping consumers.
//!
//! Time here is that of the memory, which steps of a clock do not move.

use serde::{Deserialize, Serialize};

use super::policy::ScalingPolicy;

/// Into how many parts a window is cut: what is held is held up to one part longer.
const PARTS: u64 = 30;
/// Most extremes kept; more only come from a window that was made longer.
const EXTREMES_MAX: usize = 64;

/// The extremes of a wish over a window, by part of it: since when, and the extreme.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Extremes(Vec<(u64, u32)>);

impl Extremes {
    /// Takes in a wish, and answers the extreme (as `pick` has it) over the window up to now.
    fn over(&mut self, window_ms: u64, at: u64, wish: u32, pick: fn(u32, u32) -> u32) -> u32 {
        let part_ms = window_ms / PARTS;
        self.0.retain(|(since, _)| {
            let until = since.saturating_add(part_ms).saturating_add(window_ms);
            until > at || *since == at
        });
        match self.0.last_mut() {
            Some((since, extreme)) if at.saturating_sub(*since) <= part_ms => {
                *extreme = pick(*extreme, wish);
            },
            _ => self.0.push((at, wish)),
        }
        if self.0.len() > EXTREMES_MAX {
            let (_, oldest) = self.0.remove(0);
            if let Some((_, next)) = self.0.first_mut() {
                *next = pick(*next, oldest);
            }
        }
        if window_ms == 0 {
            return wish;
        }
        self.0
            .iter()
            .fold(wish, |extreme, (_, one)| pick(extreme, *one))
    }
}

/// What is kept between calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Steps {
    /// What was asked for the last time.
    pub(super) asked: u32,
    /// When more were asked for the last time.
    pub(super) up_at: Option<u64>,
    /// When fewer were.
    down_at: Option<u64>,
    smallest: Extremes,
    largest: Extremes,
}

/// What keeps the answer from being the wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    Free,
    /// More are wanted, but not for long enough.
    UpWindow,
    /// Fewer are wanted, but not for long enough.
    DownWindow,
    /// The last step up or down is too recent; how many ms are left.
    Cooldown(u64),
    /// A step is no larger.
    Step,
}

impl Steps {
    /// The next answer, before limits, to a wish at a time.
    pub(super) fn next(&mut self, policy: &ScalingPolicy, at: u64, wish: u32) -> (u32, Hold) {
        let (up_ms, down_ms) = (policy.scale_up_window_ms, policy.scale_down_window_ms);
        let lasting_up = self.smallest.over(up_ms, at, wish, u32::min);
        let lasting_down = self.largest.over(down_ms, at, wish, u32::max);
        let asked = self.asked;
        if wish > asked {
            // What came before the memory began is not known to have wanted so many.
            if at < up_ms || lasting_up <= asked {
                return (asked, Hold::UpWindow);
            }
            let pause = left(self.up_at, policy.scale_up_cooldown_ms, at);
            if pause > 0 {
                return (asked, Hold::Cooldown(pause));
            }
            let step = limit(policy.scale_up_step);
            let next = lasting_up.min(asked.saturating_add(step));
            let hold = if next < lasting_up {
                Hold::Step
            } else if next < wish {
                Hold::UpWindow
            } else {
                Hold::Free
            };
            return (next, hold);
        }
        if wish < asked {
            if at < down_ms || lasting_down >= asked {
                return (asked, Hold::DownWindow);
            }
            let pause = left(self.down_at, policy.scale_down_cooldown_ms, at);
            if pause > 0 {
                return (asked, Hold::Cooldown(pause));
            }
            let step = limit(policy.scale_down_step);
            let next = lasting_down.max(asked.saturating_sub(step));
            let hold = if next > lasting_down {
                Hold::Step
            } else if next > wish {
                Hold::DownWindow
            } else {
                Hold::Free
            };
            return (next, hold);
        }
        (asked, Hold::Free)
    }

    /// Takes in what the answer became.
    pub(super) fn settle(&mut self, at: u64, asked: u32) {
        if asked > self.asked {
            self.up_at = Some(at);
        }
        if asked < self.asked {
            self.down_at = Some(at);
        }
        self.asked = asked;
    }
}

/// How long a pause still lasts. Two steps never share a moment, or a second plan would move.
fn left(last: Option<u64>, cooldown_ms: u64, at: u64) -> u64 {
    let Some(last) = last else {
        return 0;
    };
    last.saturating_add(cooldown_ms.max(1)).saturating_sub(at)
}

/// The largest step; 0 stands for none.
const fn limit(step: u32) -> u32 {
    if step == 0 { u32::MAX } else { step }
}
