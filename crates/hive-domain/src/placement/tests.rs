//! Groups by each rule, and limits that move.

use proptest::prelude::*;

use super::*;

fn group(name: &str, agent_type: &str) -> GroupFacts {
    GroupFacts {
        name: name.to_owned(),
        stream: "s".to_owned(),
        agent_type: agent_type.to_owned(),
        waiting: 0,
        pending: 0,
        live_consumers: 1,
        max_consumers: 10,
        capabilities: vec![CapabilitySet::new()],
        wanted_sets: Vec::new(),
        state: GroupState::Active,
    }
}

fn of_kind(kind: &str) -> Wanted {
    Wanted {
        kind: kind.to_owned(),
        ..Wanted::default()
    }
}

fn chosen(facts: &[GroupFacts], wanted: &Wanted) -> (String, Rule) {
    let choice = choose_group(facts, wanted).expect("somebody serves it");
    (choice.group, choice.rule)
}

#[test]
fn the_first_rule_that_finds_a_group_decides() {
    let mut facts = vec![
        group("mine", "x"),
        group("a", "backend"),
        group("backend_consumers", "x"),
        group("backend_engineers", "y"),
    ];
    let wanted = Wanted {
        group: Some("mine".to_owned()),
        ..of_kind("backend")
    };
    let mut found = Vec::new();
    while !facts.is_empty() {
        let (name, rule) = chosen(&facts, &wanted);
        facts.retain(|group| group.name != name);
        found.push((name, rule));
    }
    let named = |name: &str, rule| (name.to_owned(), rule);
    assert_eq!(
        found,
        [
            named("mine", Rule::Named),
            named("a", Rule::AgentType),
            named("backend_consumers", Rule::Consumers),
            named("backend_engineers", Rule::Alias),
        ]
    );
}

#[test]
fn an_alias_is_found_by_the_type_of_the_agents_too() {
    let facts = [group("g", "architects")];
    for kind in ["architecture", "architect"] {
        assert_eq!(
            chosen(&facts, &of_kind(kind)),
            ("g".to_owned(), Rule::Alias)
        );
    }
}

#[test]
fn nobody_falls_to_the_generalists() {
    let facts = [group("general_agents", "general")];
    let unserved = choose_group(&facts, &of_kind("security")).unwrap_err();
    assert_eq!(
        unserved.to_string(),
        "no group serves type `security`; looked for agents of type `security`, a group \
         `security_consumers`, a group or agents of type `security_engineers`"
    );
    let wanted = Wanted {
        group: Some("gone".to_owned()),
        ..Wanted::default()
    };
    let unserved = choose_group(&facts, &wanted).unwrap_err();
    assert_eq!(
        unserved.to_string(),
        "no group serves group `gone`; looked for a group `gone`"
    );
}

#[test]
fn the_least_work_for_each_live_consumer_wins_and_names_break_ties() {
    let busy = |name: &str, waiting, live_consumers| GroupFacts {
        waiting,
        live_consumers,
        ..group(name, "qa")
    };
    let facts = [
        busy("a", 10, 1),
        busy("b", 12, 4),
        busy("c", 12, 4),
        busy("d", 0, 0),
    ];
    let choice = choose_group(&facts, &of_kind("qa")).unwrap();
    assert_eq!(choice.group, "b");
    assert_eq!(
        choice.reason,
        "its agents are of type `qa`; of 4 groups it has the least work, 12 messages for 4 live \
         consumers"
    );
}

#[test]
fn a_group_that_delivers_comes_before_one_that_does_not() {
    let paused = GroupFacts {
        state: GroupState::Paused,
        ..group("a", "qa")
    };
    let deleting = GroupFacts {
        state: GroupState::Deleting,
        ..group("b", "qa")
    };
    let busy = GroupFacts {
        waiting: 1_000,
        ..group("c", "qa")
    };
    let all = [paused.clone(), deleting.clone(), busy];
    assert_eq!(chosen(&all, &of_kind("qa")).0, "c");
    let choice = choose_group(&[deleting.clone(), paused], &of_kind("qa")).unwrap();
    assert_eq!(choice.reason, "its agents are of type `qa`; it is paused");
    assert!(choose_group(&[deleting], &of_kind("qa")).is_err());
}

#[test]
fn capabilities_come_before_load_where_the_strategy_says_so() {
    let gpu = CapabilitySet::from(vec!["gpu".to_owned()]);
    let able = GroupFacts {
        waiting: 9,
        capabilities: vec![CapabilitySet::new(), gpu.clone()],
        ..group("able", "data")
    };
    let facts = [able, group("idle", "data")];
    let mut wanted = Wanted {
        required_capabilities: gpu,
        ..of_kind("data")
    };
    let choice = choose_group(&facts, &wanted).unwrap();
    assert_eq!(choice.group, "idle");
    assert!(
        choice
            .reason
            .ends_with("none of its live consumers has all of `gpu`")
    );
    wanted.is_by_capability = true;
    assert_eq!(chosen(&facts, &wanted).0, "able");
}

#[test]
fn the_limit_shrinks_by_shares_and_grows_by_steps() {
    let calm = LoadFacts {
        limit: 16,
        limit_max: 50,
        at_work: 16,
        waiting: 0,
        live_consumers: 4,
        succeeded: 10,
        failed: 0,
    };
    let limit = |change: fn(&mut LoadFacts)| {
        let mut facts = calm;
        change(&mut facts);
        parallel_limit(&facts)
    };
    assert_eq!(limit(|_| {}), 18);
    assert_eq!(limit(|facts| facts.at_work = 3), 16);
    assert_eq!(limit(|facts| facts.failed = 11), 8);
    assert_eq!(limit(|facts| facts.failed = 3), 12);
    assert_eq!(limit(|facts| facts.waiting = 9), 12);
    assert_eq!(
        limit(|facts| (facts.waiting, facts.live_consumers) = (99, 15)),
        15
    );
    assert_eq!(limit(|facts| (facts.succeeded, facts.failed) = (0, 4)), 18);
    assert_eq!(limit(|facts| facts.limit_max = 17), 17);
}

proptest! {
    #[test]
    fn a_limit_is_at_least_one_and_never_passes_the_highest(
        limit in any::<u32>(), limit_max in any::<u32>(), at_work in any::<u32>(),
        waiting in any::<u64>(), live_consumers in any::<u32>(),
        succeeded in any::<u32>(), failed in any::<u32>(),
    ) {
        let facts = LoadFacts {
            limit, limit_max, at_work, waiting, live_consumers, succeeded, failed,
        };
        let next = parallel_limit(&facts);
        prop_assert!(next >= 1 && next <= limit_max.max(1));
    }

    #[test]
    fn the_order_of_the_facts_does_not_matter(
        loads in proptest::collection::vec((0..4_u64, 0..3_u32), 1..6), by in 0..6_usize,
    ) {
        let mut facts: Vec<GroupFacts> = loads.iter().enumerate().map(|(n, (waiting, live))| {
            GroupFacts {
                waiting: *waiting,
                live_consumers: *live,
                ..group(&format!("g{n}"), "qa")
            }
        }).collect();
        let first = chosen(&facts, &of_kind("qa"));
        let middle = by.min(facts.len());
        facts.rotate_left(middle);
        prop_assert_eq!(chosen(&facts, &of_kind("qa")), first);
    }
}
