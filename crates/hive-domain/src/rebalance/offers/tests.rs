//! Who is offered what, and laws of it.

use proptest::prelude::*;

use super::*;

fn set(names: &[&str]) -> CapabilitySet {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn backlog(group: &str, waiting: u64, consumers: u32, wanted: &[&[&str]]) -> Backlog {
    Backlog {
        group: group.to_owned(),
        waiting,
        consumers,
        max_consumers: 10,
        wanted_sets: wanted.iter().map(|names| set(names)).collect(),
    }
}

fn idle(group: &str, consumer: &str, names: &[&str]) -> Idle {
    Idle {
        group: group.to_owned(),
        consumer: consumer.to_owned(),
        capabilities: set(names),
        idle_ms: IDLE_MS_MIN,
    }
}

fn told(offers: &[Offer]) -> Vec<(&str, &str)> {
    let pairs = offers.iter();
    pairs
        .map(|offer| (offer.consumer.as_str(), offer.to.as_str()))
        .collect()
}

#[test]
fn an_agent_is_offered_the_work_that_it_can_do() {
    let backlogs = [
        backlog("gpu", 90, 2, &[&["gpu"], &["cuda", "gpu"]]),
        backlog("any", 4, 2, &[&[]]),
        backlog("java", 500, 1, &[&["java"]]),
    ];
    let agents = [
        idle("home", "a", &["gpu"]),
        idle("home", "b", &["cuda", "gpu"]),
        idle("home", "c", &[]),
    ];
    let offers = offers(&backlogs, &agents);
    assert_eq!(told(&offers), [("c", "any"), ("a", "gpu"), ("b", "gpu")]);
    assert_eq!(
        offers[1].reason,
        "`gpu` has 90 messages waiting for 2 of 10 consumers; `a` of `home` has been idle for \
         10 s, where nothing waits, and has 1 of 2 sets of capabilities that they require"
    );
}

#[test]
fn no_more_are_asked_than_the_backlog_needs() {
    let agents: Vec<Idle> = (0..30)
        .map(|n| idle("home", &format!("a{n:02}"), &[]))
        .collect();
    let count = |backlog: Backlog| offers(&[backlog], &agents).len();
    assert_eq!(count(backlog("g", 0, 0, &[])), 0);
    assert_eq!(count(backlog("g", 3, 0, &[])), 3);
    assert_eq!(count(backlog("g", 7, 8, &[])), 0);
    assert_eq!(count(backlog("g", 8, 4, &[])), 2);
    assert_eq!(count(backlog("g", 1_000, 8, &[])), 2);
    assert_eq!(count(backlog("g", 1_000, 10, &[])), 0);
    let wide = Backlog {
        max_consumers: 1_000,
        ..backlog("g", 10_000, 1, &[])
    };
    assert_eq!(count(wide), 10);
}

#[test]
fn who_has_work_at_home_or_only_just_ended_it_is_left_alone() {
    let backlogs = [backlog("g", 90, 1, &[]), backlog("busy", 1, 1, &[])];
    let fresh = Idle {
        idle_ms: IDLE_MS_MIN - 1,
        ..idle("home", "fresh", &[])
    };
    let agents = [
        idle("busy", "a", &[]),
        idle("g", "member", &[]),
        idle("home", "member", &[]),
        fresh,
        idle("home", "z", &[]),
    ];
    assert_eq!(told(&offers(&backlogs, &agents)), [("z", "g")]);
}

#[test]
fn groups_take_turns() {
    let backlogs = [backlog("a", 90, 1, &[]), backlog("b", 900, 1, &[])];
    let agents = ["1", "2", "3"].map(|id| idle("home", id, &[]));
    assert_eq!(
        told(&offers(&backlogs, &agents)),
        [("2", "a"), ("1", "b"), ("3", "b")]
    );
}

proptest! {
    #[test]
    fn offers_are_few_fitting_and_the_same_in_any_order(
        groups in proptest::collection::vec((0..40_u64, 0..4_u32, 0..5_u32, 0..4_usize), 0..5),
        agents in proptest::collection::vec((0..6_usize, 0..8_u8, 0..3_usize, 0..20_000_u64), 0..9),
        shift in 0..9_usize,
    ) {
        let sets: [&[&str]; 3] = [&[], &["gpu"], &["cuda", "gpu"]];
        let backlogs: Vec<Backlog> = groups
            .iter()
            .enumerate()
            .map(|(n, (waiting, consumers, most, wanted))| Backlog {
                max_consumers: *most,
                ..backlog(&format!("g{n}"), *waiting, *consumers, &sets[..*wanted])
            })
            .collect();
        let agents: Vec<Idle> = agents
            .iter()
            .map(|(group, id, able, idle_ms)| Idle {
                idle_ms: *idle_ms,
                ..idle(&format!("g{group}"), &format!("a{id}"), sets[*able])
            })
            .collect();
        let found = offers(&backlogs, &agents);
        let names: BTreeSet<&str> = found.iter().map(|offer| offer.consumer.as_str()).collect();
        prop_assert_eq!(names.len(), found.len());
        for backlog in &backlogs {
            let here = found.iter().filter(|offer| offer.to == backlog.group).count() as u64;
            let after = here + u64::from(backlog.consumers);
            prop_assert!(here <= backlog.waiting);
            prop_assert!(here == 0 || after <= u64::from(backlog.max_consumers));
        }
        for offer in &found {
            let to = backlogs.iter().find(|backlog| backlog.group == offer.to).unwrap();
            let own: Vec<&Idle> = agents
                .iter()
                .filter(|agent| agent.consumer == offer.consumer)
                .collect();
            prop_assert!(own.iter().all(|agent| agent.idle_ms >= IDLE_MS_MIN));
            prop_assert!(own.iter().all(|agent| agent.group != offer.to));
            let sets = &to.wanted_sets;
            let can_do = |agent: &&Idle| sets.iter().any(|set| agent.capabilities.covers(set));
            prop_assert!(sets.is_empty() || own.iter().any(can_do));
            let home = backlogs.iter().find(|backlog| backlog.group == offer.group);
            prop_assert!(home.is_none_or(|home| home.waiting == 0));
        }
        let (mut other, mut others) = (backlogs, agents);
        other.reverse();
        let middle = shift.min(others.len());
        others.rotate_left(middle);
        prop_assert_eq!(offers(&other, &others), found);
    }
}
