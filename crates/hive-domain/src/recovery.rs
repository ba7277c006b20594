//! What recovery does with each delivery: left alone, counted as a failed attempt, or given back.
//!
//! A delivery is counted only where its consumer had begun it, so that the neighbours of a poison
//! message and the victims of a crash never reach the dead letters for it. Nobody wrote down what
//! was begun; the oldest deliveries of a consumer, as many as it works on at once, stand for it.
//! Nothing here acts: each answer is carried out by a script that checks owner, count and idle time
//! again.

use std::collections::BTreeMap;

/// What the owner of a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A member of the group.
    Member {
        /// How many it works on at once: this many of its oldest deliveries count as begun.
        concurrency: u32,
        /// Idle time from which its deliveries are lost, in ms.
        expiry_ms: u64,
        /// How many of its lost deliveries were counted already in this one failure.
        charged: u32,
    },
    /// A consumer that is no member any more.
    Stranger,
    /// The place of messages that were taken out to be settled at once.
    Taken,
    /// A place whose entries an index names.
    Place,
}

/// One delivery that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who has it.
    pub owner: String,
    /// Since its last delivery or extension, in ms.
    pub idle_ms: u64,
    /// Orders deliveries of equal idle time: the smaller was published earlier.
    pub age: (u64, u64),
}

/// What is to become of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Spare,
    /// A failed attempt, if it is still idle for so many ms.
    Count {
        /// Least idle time in ms.
        idle_ms: u64,
    },
    /// Given back uncounted, if it is still idle for so many ms; 0 for at once.
    GiveBack {
        /// Least idle time in ms.
        idle_ms: u64,
    },
}

/// A message that was taken out and not settled within this time is given back, in ms.
pub const TAKEN_MS: u64 = 60_000;

/// Judges all deliveries of a group; answers are in their order.
///
/// `owners` says what each owner is; one that it does not name is a stranger. With `in_grace`, the
/// time after a restart of Redis, nothing ends by its deadline.
#[must_use]
pub fn judge(held: &[Held], owners: &BTreeMap<String, Owner>, in_grace: bool) -> Vec<Verdict> {
    let begun = begun(held, owners);
    held.iter()
        .zip(begun)
        .map(
            |(held, begun)| match owners.get(&held.owner).copied().unwrap_or(Owner::Stranger) {
                Owner::Stranger => Verdict::GiveBack { idle_ms: 0 },
                Owner::Place => Verdict::Spare,
                Owner::Taken if in_grace || held.idle_ms < TAKEN_MS => Verdict::Spare,
                Owner::Taken => Verdict::GiveBack { idle_ms: TAKEN_MS },
                Owner::Member { expiry_ms, .. } if in_grace || held.idle_ms < expiry_ms => {
                    Verdict::Spare
                },
                Owner::Member { expiry_ms, .. } if begun => Verdict::Count { idle_ms: expiry_ms },
                Owner::Member { expiry_ms, .. } => Verdict::GiveBack { idle_ms: expiry_ms },
            },
        )
        .collect()
}

/// Which deliveries stand for begun ones: of each member the oldest, as many as it works on at
/// once less those that were counted before.
fn begun(held: &[Held], owners: &BTreeMap<String, Owner>) -> Vec<bool> {
    let mut order: Vec<usize> = (0..held.len()).collect();
    order.sort_by_key(|position| {
        held.get(*position)
            .map(|held| (u64::MAX.saturating_sub(held.idle_ms), held.age))
    });
    let mut slots: BTreeMap<&str, u32> = owners
        .iter()
        .filter_map(|(name, owner)| match owner {
            Owner::Member {
                concurrency,
                charged,
                ..
            } => Some((name.as_str(), concurrency.saturating_sub(*charged))),
            Owner::Stranger | Owner::Taken | Owner::Place => None,
        })
        .collect();
    let mut begun = vec![false; held.len()];
    for position in order {
        let slot = held
            .get(position)
            .and_then(|held| slots.get_mut(held.owner.as_str()));
        if let (Some(slot), Some(begun)) = (slot, begun.get_mut(position))
            && *slot > 0
        {
            *slot = slot.saturating_sub(1);
            *begun = true;
        }
    }
    begun
}

/// Whether a gateway is dead for a consumer that it serves: not heard for longer than `silence_ms`.
///
/// `beat_ms` is its last beat, `joined_ms` the consumer's join, which proves it alive as well.
/// `steady_ms` is when the current stretch of unbroken time began: while Redis was away nobody
/// could beat.
#[must_use]
pub fn is_gateway_dead(
    now_ms: u64,
    beat_ms: Option<u64>,
    joined_ms: u64,
    steady_ms: u64,
    silence_ms: u64,
) -> bool {
    let heard_ms = beat_ms.unwrap_or(0).max(joined_ms).max(steady_ms);
    now_ms.saturating_sub(heard_ms) > silence_ms
}

/// The idle time that ends a delivery of a member, in ms: the group's lease, or the one that the
/// member was told when it joined, where that is longer: it sends heartbeats by it. With `slack_ms`
/// on top, where somebody else is to act first.
#[must_use]
pub fn expiry_ms(lease_ms: u64, told_ms: u64, slack_ms: u64) -> u64 {
    lease_ms.max(told_ms).saturating_add(slack_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(concurrency: u32, expiry_ms: u64, charged: u32) -> Owner {
        Owner::Member {
            concurrency,
            expiry_ms,
            charged,
        }
    }

    fn owners() -> impl Strategy<Value = BTreeMap<String, Owner>> {
        let owner = prop_oneof![
            4 => (1..4_u32, 1..100_u64, 0..3_u32).prop_map(|(c, e, d)| member(c, e, d)),
            1 => Just(Owner::Stranger),
            1 => Just(Owner::Taken),
            1 => Just(Owner::Place),
        ];
        proptest::collection::btree_map("[a-e]", owner, 0..5)
    }

    fn deliveries() -> impl Strategy<Value = Vec<Held>> {
        let held =
            ("[a-f]", 0..200_u64, (0..5_u64, 0..5_u64)).prop_map(|(owner, idle_ms, age)| Held {
                owner,
                idle_ms,
                age,
            });
        proptest::collection::vec(held, 0..30)
    }

    proptest! {
        #[test]
        fn a_consumer_is_never_charged_for_more_than_it_works_on(
            held in deliveries(), owners in owners()
        ) {
            let verdicts = judge(&held, &owners, false);
            for (name, owner) in &owners {
                let counted = held.iter().zip(&verdicts).filter(|(held, verdict)| {
                    held.owner == *name && matches!(verdict, Verdict::Count { .. })
                }).count();
                let most = match owner {
                    Owner::Member { concurrency, charged, .. } => {
                        usize::try_from(concurrency.saturating_sub(*charged)).unwrap()
                    },
                    Owner::Stranger | Owner::Taken | Owner::Place => 0,
                };
                prop_assert!(counted <= most, "{name}: {counted} of {most}");
            }
        }

        #[test]
        fn a_delivery_within_its_lease_is_spared(held in deliveries(), owners in owners()) {
            for (held, verdict) in held.iter().zip(judge(&held, &owners, false)) {
                if let Some(Owner::Member { expiry_ms, .. }) = owners.get(&held.owner) {
                    prop_assert_eq!(held.idle_ms < *expiry_ms, verdict == Verdict::Spare);
                }
            }
        }

        #[test]
        fn in_the_grace_only_strangers_lose_anything(
            held in deliveries(), owners in owners()
        ) {
            for (held, verdict) in held.iter().zip(judge(&held, &owners, true)) {
                let is_stranger =
                    matches!(owners.get(&held.owner), None | Some(Owner::Stranger));
                let expected = if is_stranger {
                    Verdict::GiveBack { idle_ms: 0 }
                } else {
                    Verdict::Spare
                };
                prop_assert_eq!(verdict, expected);
            }
        }

        #[test]
        fn the_order_of_the_walk_does_not_matter(held in deliveries(), owners in owners()) {
            let mut distinct: BTreeMap<(String, u64, (u64, u64)), Held> = BTreeMap::new();
            for held in held {
                distinct.insert((held.owner.clone(), held.idle_ms, held.age), held);
            }
            let held: Vec<Held> = distinct.into_values().collect();
            let mut turned = held.clone();
            turned.reverse();
            let mut verdicts = judge(&turned, &owners, false);
            verdicts.reverse();
            prop_assert_eq!(judge(&held, &owners, false), verdicts);
        }
    }

    #[test]
    fn the_oldest_delivery_counts_and_its_neighbours_do_not() {
        let held = |idle_ms, age| Held {
            owner: "a".into(),
            idle_ms,
            age: (age, 0),
        };
        let owners = BTreeMap::from([("a".to_owned(), member(1, 50, 0))]);
        assert_eq!(
            judge(
                &[held(60, 2), held(60, 1), held(70, 3), held(40, 0)],
                &owners,
                false
            ),
            [
                Verdict::GiveBack { idle_ms: 50 },
                Verdict::GiveBack { idle_ms: 50 },
                Verdict::Count { idle_ms: 50 },
                Verdict::Spare,
            ]
        );
    }

    #[test]
    fn a_gateway_is_not_dead_for_the_time_that_redis_was_away() {
        assert!(is_gateway_dead(30_001, Some(20_000), 0, 0, 10_000));
        assert!(!is_gateway_dead(30_000, Some(20_000), 0, 0, 10_000));
        assert!(!is_gateway_dead(30_001, Some(5_000), 0, 25_000, 10_000));
        assert!(!is_gateway_dead(30_001, None, 29_000, 0, 10_000));
        assert!(is_gateway_dead(30_001, None, 9_000, 0, 10_000));
    }

    #[test]
    fn a_shortened_lease_holds_for_members_that_join_after_it() {
        assert_eq!(expiry_ms(5, 30, 0), 30);
        assert_eq!(expiry_ms(5, 5, 0), 5);
        assert_eq!(expiry_ms(50, 30, 500), 550);
        assert_eq!(expiry_ms(50, 0, 0), 50);
    }
}
