//! Who goes when there are too many: those who lose least.
//!
//! A consumer that holds nothing loses nothing; among these the one idle longest. What is begun is
//! finished before a consumer goes, so few begun messages make it go sooner; what is held and not
//! begun is given back uncounted and costs only another delivery.

use std::cmp::Reverse;

/// What is known of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub consumer: String,
    /// Messages that it holds, begun or not.
    pub held: u32,
    /// Of those, how many it works on.
    pub begun: u32,
    /// How long it has held nothing, in ms.
    pub idle_ms: u64,
    /// Whether it is on its way out.
    pub draining: bool,
}

/// A consumer that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Its name.
    pub consumer: String,
    /// Why this one, for a person.
    pub reason: String,
}

/// The `count` consumers that lose least by going, in that order; fewer where there are fewer.
///
/// Those that drain already are never among them, and do not count towards `count`.
#[must_use]
pub fn victims(holders: &[Holder], count: u32) -> Vec<Victim> {
    let mut staying: Vec<&Holder> = holders.iter().filter(|one| !one.draining).collect();
    staying.sort_by_cached_key(|one| {
        let idle_ms = if one.held == 0 { one.idle_ms } else { 0 };
        let is_busy = one.held > 0 || one.begun > 0;
        (
            is_busy,
            Reverse(idle_ms),
            one.begun,
            one.held,
            one.consumer.clone(),
        )
    });
    let of = staying.len();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let chosen = staying.into_iter().take(count);
    let named = chosen.map(|one| Victim {
        consumer: one.consumer.clone(),
        reason: reason(one, of),
    });
    named.collect()
}

/// Why a consumer loses least.
fn reason(one: &Holder, of: usize) -> String {
    let Holder { held, begun, .. } = one;
    if *held == 0 && *begun == 0 {
        let seconds = one.idle_ms / 1_000;
        return format!("holds nothing, idle for {seconds} s; loses least of {of}");
    }
    let rest = held.saturating_sub(*begun);
    format!("works on {begun} and gives {rest} back; loses least of {of}")
}
