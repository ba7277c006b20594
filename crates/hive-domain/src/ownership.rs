//! Who owns what, when several replicas share the work: rendezvous hashing.
//!
//! Every replica computes the same owner from the same list, and when one comes or goes only what
//! it owns moves. Two replicas may differ for a moment while they see different lists: this never
//! promises to be alone, and what an owner does must do no harm where another does it too.

use crate::hash;

/// The replica that owns `key`, or none when there is no replica. The order of `replicas` does not
/// matter; two equal names are one replica.
#[must_use]
pub fn owner<'a>(key: &str, replicas: &'a [String]) -> Option<&'a str> {
    replicas
        .iter()
        .map(|replica| {
            (
                hash::of(&[key.as_bytes(), replica.as_bytes()]),
                replica.as_str(),
            )
        })
        .max()
        .map(|(_, replica)| replica)
}

/// Which of `parts` equal parts `key` falls into, from 0; 0 when there are none.
#[must_use]
pub fn part(key: &str, parts: u32) -> u32 {
    let hash = hash::of(&[key.as_bytes()]);
    let part = hash.checked_rem(u64::from(parts)).unwrap_or(0);
    u32::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::owner;

    fn replica_lists() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::btree_set("[a-z]{1,6}", 1..8)
            .prop_map(|names| names.into_iter().collect())
    }

    proptest! {
        #[test]
        fn removing_a_replica_moves_only_its_keys(
            replicas in replica_lists(), key in "[a-z]{1,8}", gone in any::<prop::sample::Index>()
        ) {
            let before = owner(&key, &replicas).map(str::to_owned);
            let mut fewer = replicas.clone();
            let gone = fewer.remove(gone.index(replicas.len()));
            let after = owner(&key, &fewer).map(str::to_owned);
            if before.as_deref() != Some(gone.as_str()) {
                prop_assert_eq!(before, after);
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(
            replicas in replica_lists(), key in "[a-z]{1,8}"
        ) {
            let mut turned = replicas.clone();
            turned.reverse();
            prop_assert_eq!(owner(&key, &replicas), owner(&key, &turned));
        }
    }

    #[test]
    fn keys_spread_roughly_evenly() {
        let replicas: Vec<String> = (0..4).map(|n| format!("10.0.0.{n}:8001")).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for n in 0..4_000 {
            *counts
                .entry(owner(&format!("group-{n}"), &replicas).unwrap())
                .or_default() += 1;
        }
        assert!(
            counts.values().all(|n| (850..1_150).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn without_a_replica_there_is_no_owner() {
        assert_eq!(owner("a", &[]), None);
    }
}
