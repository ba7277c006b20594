//! Laws of the read plan.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Free, SLOTS_PER_CONSUMER_MAX, Slot, carried, is_outdone, rounds};
use crate::{capability::CapabilitySet, group::RoutingMode};

fn free(index: usize, free: u32, capacity: u32) -> Free {
    Free {
        index,
        free,
        capacity,
        specialisation: 0,
    }
}

fn slot(index: usize, count: u32) -> Slot {
    Slot { index, count }
}

fn consumers() -> impl Strategy<Value = Vec<Free>> {
    let one = (0..3_000_u32, 0..3_000_u32, 0..5_usize);
    proptest::collection::vec(one, 0..20).prop_map(|list| {
        list.into_iter()
            .enumerate()
            .map(|(index, (free, more, specialisation))| Free {
                index,
                free,
                capacity: free + more,
                specialisation,
            })
            .collect()
    })
}

fn modes() -> impl Strategy<Value = RoutingMode> {
    prop::sample::select(RoutingMode::ALL.to_vec())
}

/// Messages per consumer when `messages` are handed out in the order of the plan.
fn handed_out(plan: &[Slot], mut messages: u32) -> BTreeMap<usize, u32> {
    let mut counts = BTreeMap::new();
    for slot in plan {
        let taken = slot.count.min(messages);
        messages -= taken;
        *counts.entry(slot.index).or_default() += taken;
    }
    counts
}

proptest! {
    #[test]
    fn a_plan_asks_for_exactly_the_free_room(
        mode in modes(), free in consumers(), last in proptest::option::of(0..20_usize)
    ) {
        let plan = rounds(mode, &free, last);
        let asked = handed_out(&plan, u32::MAX);
        let room: BTreeMap<usize, u32> =
            free.iter().filter(|c| c.free > 0).map(|c| (c.index, c.free)).collect();
        prop_assert_eq!(asked, room);
        prop_assert!(plan.iter().all(|slot| slot.count > 0));
    }

    #[test]
    fn a_plan_costs_a_bounded_number_of_requests(mode in modes(), free in consumers()) {
        let plan = rounds(mode, &free, None);
        prop_assert!(plan.len() <= free.len() * SLOTS_PER_CONSUMER_MAX as usize);
    }

    #[test]
    fn equal_consumers_get_equal_shares_up_to_the_size_of_one_request(
        mode in modes(), n in 1..12_usize, room in 1..1_000_u32, messages in 0..5_000_u32,
        last in proptest::option::of(0..12_usize)
    ) {
        let equal: Vec<Free> = (0..n).map(|index| free(index, room, 1_000)).collect();
        let counts = handed_out(&rounds(mode, &equal, last), messages);
        let least = counts.values().min().copied().unwrap_or(0);
        let most = counts.values().max().copied().unwrap_or(0);
        // A request of round k is as large as all earlier ones of its consumer together.
        prop_assert!(most - least <= least.max(1), "{counts:?}");
    }

    #[test]
    fn a_fetch_asks_for_no_more_than_the_room_and_in_the_order_of_the_plan(
        mode in modes(), free in consumers(), most in 0..200_u32
    ) {
        let slots = carried(mode, &rounds(mode, &free, None), most);
        let plan = carried(RoutingMode::LoadBalanced, &rounds(mode, &free, None), most);
        prop_assert_eq!(slots.get(..plan.len()), Some(&plan[..]));
        let behind = slots.len() - plan.len();
        prop_assert!(behind == 0 || mode == RoutingMode::WorkflowAware);
        prop_assert!(plan.iter().map(|slot| slot.1).sum::<u32>() <= most);
        let mut asked: BTreeMap<usize, u32> = BTreeMap::new();
        for (index, count) in slots {
            prop_assert!(count > 0);
            *asked.entry(index).or_default() += count;
        }
        for (index, count) in asked {
            prop_assert!(free.iter().any(|one| one.index == index && one.free >= count));
        }
    }

    #[test]
    fn a_workflow_aware_fetch_asks_for_everybody_with_room(
        free in consumers(), most in 0..200_u32, last in proptest::option::of(0..20_usize)
    ) {
        let mode = RoutingMode::WorkflowAware;
        let slots = carried(mode, &rounds(mode, &free, last), most);
        for one in free.iter().filter(|one| one.free > 0) {
            prop_assert!(slots.iter().any(|(index, _)| *index == one.index));
        }
    }

    #[test]
    fn a_workflow_aware_group_is_planned_as_a_load_balanced_one(
        free in consumers(), last in proptest::option::of(0..20_usize)
    ) {
        prop_assert_eq!(
            rounds(RoutingMode::WorkflowAware, &free, last),
            rounds(RoutingMode::LoadBalanced, &free, last)
        );
    }

    #[test]
    fn the_next_of_a_load_balanced_group_is_the_freest(free in consumers()) {
        let plan = rounds(RoutingMode::LoadBalanced, &free, None);
        if let Some(first) = plan.first() {
            let share = |c: &Free| u64::from(c.free) * 10_000 / u64::from(c.capacity.max(1));
            let best = free.iter().filter(|c| c.free > 0).map(share).max();
            prop_assert_eq!(best, free.iter().find(|c| c.index == first.index).map(share));
        }
    }
}

#[test]
fn few_messages_are_spread_and_many_cost_few_calls() {
    let two = [free(0, 8, 8), free(1, 8, 8)];
    let plan = rounds(RoutingMode::RoundRobin, &two, None);
    let counts: Vec<(usize, u32)> = plan.iter().map(|s| (s.index, s.count)).collect();
    assert_eq!(
        counts,
        [
            (0, 1),
            (1, 1),
            (0, 1),
            (1, 1),
            (0, 2),
            (1, 2),
            (0, 4),
            (1, 4)
        ]
    );
}

#[test]
fn a_single_consumer_costs_one_call() {
    assert_eq!(
        rounds(RoutingMode::LoadBalanced, &[free(3, 500, 500)], None),
        [slot(3, 500)]
    );
}

#[test]
fn turns_go_on_behind_the_last_served() {
    let three = [free(0, 1, 1), free(1, 1, 1), free(2, 1, 1)];
    let order = |last| -> Vec<usize> {
        rounds(RoutingMode::RoundRobin, &three, last)
            .iter()
            .map(|slot| slot.index)
            .collect()
    };
    assert_eq!(order(None), [0, 1, 2]);
    assert_eq!(order(Some(0)), [1, 2, 0]);
    assert_eq!(order(Some(2)), [0, 1, 2]);
    assert_eq!(order(Some(7)), [0, 1, 2]);
}

#[test]
fn idle_equals_of_a_load_balanced_group_take_turns_at_a_trickle() {
    let idle = [free(0, 4, 4), free(1, 4, 4), free(2, 4, 4)];
    let mut last = None;
    let mut served = Vec::new();
    for _ in 0..6 {
        last = rounds(RoutingMode::LoadBalanced, &idle, last)
            .first()
            .map(|slot| slot.index);
        served.extend(last);
    }
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_busy_consumer_waits_until_the_others_are_as_busy() {
    let two = [free(0, 1, 10), free(1, 10, 10)];
    let counts = handed_out(&rounds(RoutingMode::LoadBalanced, &two, None), 8);
    assert_eq!(counts, BTreeMap::from([(0, 0), (1, 8)]));
}

#[test]
fn the_most_specialised_is_served_while_it_has_room() {
    let generalist = Free {
        index: 0,
        free: 9,
        capacity: 9,
        specialisation: 5,
    };
    let specialist = Free {
        index: 1,
        free: 2,
        capacity: 9,
        specialisation: 1,
    };
    let plan = rounds(
        RoutingMode::CapabilityMatched,
        &[generalist, specialist],
        None,
    );
    assert_eq!(plan, [slot(1, 2), slot(0, 9)]);
}

#[test]
fn a_consumer_is_outdone_where_each_of_its_messages_has_a_more_specialised_taker() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (gpu, general): (CapabilitySet, CapabilitySet) =
        (set(&["gpu"]), set(&["gpu", "rust", "python"]));
    let wanted: [CapabilitySet; 2] = [set(&[]), set(&["gpu"])];
    let elsewhere = [gpu.clone()];
    assert!(is_outdone(&general, &elsewhere, &wanted));
    assert!(!is_outdone(&gpu, &elsewhere, &wanted), "equals are not");
    assert!(!is_outdone(&general, &[], &wanted));
    let python = [set(&[]), set(&["python"])];
    assert!(!is_outdone(&general, &elsewhere, &python), "it alone can");
}
