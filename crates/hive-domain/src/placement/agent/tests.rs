//! Groups for agents by each strategy, templates that are and are not to be made, and laws.

use proptest::prelude::{Strategy as _, *};

use super::{Strategy, *};

fn set(names: &[&str]) -> CapabilitySet {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn group(name: &str, agent_type: &str) -> GroupFacts {
    GroupFacts {
        name: name.to_owned(),
        stream: format!("agent_messages:{agent_type}"),
        agent_type: agent_type.to_owned(),
        waiting: 0,
        pending: 0,
        live_consumers: 1,
        max_consumers: 10,
        capabilities: Vec::new(),
        wanted_sets: Vec::new(),
        state: GroupState::Active,
    }
}

fn agent(agent_type: &str, names: &[&str]) -> AgentWanted {
    AgentWanted {
        agent_type: agent_type.to_owned(),
        capabilities: set(names),
    }
}

fn chosen(strategy: Strategy, facts: &[GroupFacts], wanted: &AgentWanted) -> AgentChoice {
    choose_for_agent(strategy, facts, wanted).expect("a place")
}

#[test]
fn without_a_group_of_the_type_its_template_is_to_be_made() {
    let facts = [group("other", "poets")];
    for strategy in Strategy::ALL {
        let choice = chosen(strategy, &facts, &agent("backend", &["rust"]));
        assert_eq!(choice.group, "backend_engineers_consumers", "{strategy}");
        assert_eq!(choice.made_from, Some(template("backend_engineers")));
        assert_eq!(
            choice.reason,
            "none of 1 groups fits; `backend_engineers_consumers` is the group of the template of \
             `backend`, on stream `agent_messages:backend_engineers` with at most 15 consumers"
        );
    }
}

#[test]
fn the_type_itself_comes_before_what_stands_for_it_and_before_the_name() {
    let mut facts = vec![
        group("qa_consumers", "x"),
        group("b", "qa_engineers"),
        group("c", "qa"),
        group("d", "poets"),
    ];
    let mut order = Vec::new();
    while facts.len() > 1 {
        let choice = chosen(Strategy::AgentTypeBased, &facts, &agent("qa", &[]));
        facts.retain(|group| group.name != choice.group);
        order.push(choice.group);
    }
    assert_eq!(order, ["c", "b", "qa_consumers"]);
}

#[test]
fn by_capability_the_group_that_needs_most_of_what_the_agent_can_do_wins() {
    let wants = |name: &str, sets: &[&[&str]]| GroupFacts {
        waiting: 5,
        wanted_sets: sets.iter().map(|names| set(names)).collect(),
        ..group(name, "poets")
    };
    let facts = [
        wants("anybody", &[&[]]),
        wants("one", &[&["gpu"]]),
        wants("both", &[&["cuda", "gpu"]]),
        wants("none", &[&["java"]]),
    ];
    let choice = chosen(
        Strategy::CapabilityBased,
        &facts,
        &agent("x", &["cuda", "gpu"]),
    );
    let order: Vec<(&str, u32)> = choice
        .scores
        .iter()
        .map(|score| (score.group.as_str(), score.score))
        .collect();
    assert_eq!(
        order,
        [("both", 1_000), ("one", 775), ("anybody", 550), ("none", 0)]
    );
    assert_eq!(
        choice.reason,
        "`both` scores 1000 by capability_based: the agent has 1 of 1 sets of capabilities that \
         messages ask for, and these need 2 of its 2 (1000)"
    );
    assert!(
        choice.scores[3]
            .reason
            .ends_with("the agent can do nothing of it")
    );
}

#[test]
fn by_workload_deserted_work_comes_first_and_then_the_most_for_each_consumer() {
    let busy = |name: &str, waiting, live_consumers| GroupFacts {
        waiting,
        live_consumers,
        ..group(name, "poets")
    };
    let facts = [
        busy("a", 1_000, 1),
        busy("b", 2, 0),
        busy("c", 1_000, 4),
        busy("d", 0, 0),
    ];
    let choice = chosen(Strategy::WorkloadBased, &facts, &agent("x", &[]));
    let order: Vec<&str> = choice
        .scores
        .iter()
        .map(|score| score.group.as_str())
        .collect();
    assert_eq!(order, ["b", "a", "c", "d"]);
    assert!(choice.reason.ends_with("2 messages and no consumer (917)"));
}

#[test]
fn an_agent_of_the_type_stays_with_it_unless_messages_elsewhere_ask_for_it() {
    let own = group("own", "renderers");
    let busy = GroupFacts {
        waiting: 500,
        wanted_sets: vec![set(&[])],
        ..group("busy", "poets")
    };
    let wanted = agent("renderers", &["gpu"]);
    let facts = [own, busy.clone()];
    assert_eq!(chosen(Strategy::Hybrid, &facts, &wanted).group, "own");
    // Without a group of its type it goes where it is asked for, not where there is just work.
    let facts = [busy.clone()];
    let choice = chosen(Strategy::Hybrid, &facts, &wanted);
    assert!(choice.made_from.is_some(), "{choice:?}");
    let asking = GroupFacts {
        wanted_sets: vec![set(&["gpu"])],
        ..busy
    };
    assert_eq!(chosen(Strategy::Hybrid, &[asking], &wanted).group, "busy");
}

#[test]
fn a_paused_group_comes_last_and_a_deleting_one_does_not_exist() {
    let paused = GroupFacts {
        state: GroupState::Paused,
        ..group("a", "poets")
    };
    let alike = group("b_consumers", "x");
    let facts = [paused, alike];
    let mut wanted = agent("poets", &[]);
    let choice = chosen(Strategy::AgentTypeBased, &facts, &wanted);
    assert_eq!(choice.group, "a");
    assert!(choice.reason.ends_with("; it is paused"), "{choice:?}");
    wanted.agent_type = "b".to_owned();
    assert_eq!(
        chosen(Strategy::AgentTypeBased, &facts, &wanted).group,
        "b_consumers"
    );
    let named = GroupFacts {
        state: GroupState::Paused,
        ..group("b", "b")
    };
    let choice = chosen(
        Strategy::AgentTypeBased,
        &[named, facts[1].clone()],
        &wanted,
    );
    assert_eq!(choice.group, "b_consumers");
    let deleting = GroupFacts {
        state: GroupState::Deleting,
        ..group("poets_consumers", "poets")
    };
    wanted.agent_type = "poets".to_owned();
    let choice = chosen(Strategy::Hybrid, &[deleting], &wanted);
    assert_eq!(choice.made_from, Some(template("poets")));
    assert!(
        choice
            .reason
            .ends_with("; the one of that name is being deleted, which comes first"),
        "{choice:?}"
    );
    assert_eq!(choice.scores, []);
}

#[test]
fn a_full_group_takes_nobody_and_is_not_made_again() {
    let full = GroupFacts {
        live_consumers: 10,
        ..group("qa_engineers_consumers", "qa_engineers")
    };
    for strategy in Strategy::ALL {
        let unplaced =
            choose_for_agent(strategy, std::slice::from_ref(&full), &agent("qa", &[])).unwrap_err();
        assert_eq!(
            unplaced.to_string(),
            format!(
                "no group has a place for an agent of type `qa`: none fits by {strategy}, and \
                 `qa_engineers_consumers` exists, on stream `agent_messages:qa_engineers` with \
                 agents of type `qa_engineers` and 10 of 10 consumers"
            )
        );
        assert_eq!(unplaced.scores[0].score, 0);
        assert_eq!(
            unplaced.scores[0].reason,
            "it is full, with 10 of 10 consumers"
        );
    }
}

#[test]
fn a_second_group_of_the_type_on_the_stream_of_the_template_is_not_made() {
    let full = GroupFacts {
        live_consumers: 10,
        ..group("mine", "qa_engineers")
    };
    let unplaced = choose_for_agent(
        Strategy::Hybrid,
        std::slice::from_ref(&full),
        &agent("qa", &[]),
    )
    .unwrap_err();
    assert!(
        unplaced
            .reason
            .ends_with("a second group of the type on that stream would do all of its work again"),
        "{unplaced:?}"
    );
    // On another stream it does other work, and so does a group of another type on that stream.
    let elsewhere = GroupFacts {
        stream: "mine".to_owned(),
        ..full
    };
    let audit = GroupFacts {
        stream: "agent_messages:qa_engineers".to_owned(),
        ..group("audit", "auditors")
    };
    let choice = chosen(Strategy::Hybrid, &[elsewhere, audit], &agent("qa", &[]));
    assert_eq!(choice.group, "qa_engineers_consumers");
    assert!(choice.made_from.is_some());
}

#[test]
fn a_group_with_the_name_of_the_template_is_what_it_is() {
    let robots = GroupFacts {
        stream: "robots".to_owned(),
        ..group("qa_engineers_consumers", "robots")
    };
    for strategy in Strategy::ALL {
        let choice = chosen(strategy, std::slice::from_ref(&robots), &agent("qa", &[]));
        assert_eq!(choice.made_from, None);
        assert!(
            choice.reason.ends_with(
                "its template is not made: `qa_engineers_consumers` exists, on stream `robots` \
                 with agents of type `robots` and 1 of 10 consumers"
            ),
            "{choice:?}"
        );
    }
    // The guide's own group has another stream, too.
    let guide = GroupFacts {
        stream: "agent_messages:qa".to_owned(),
        ..group("qa_engineers_consumers", "qa_engineers")
    };
    let choice = chosen(Strategy::Hybrid, &[guide], &agent("qa_engineers", &[]));
    assert_eq!(choice.made_from, None);
    assert!(choice.reason.contains("on stream `agent_messages:qa` with"));
}

#[test]
fn a_type_that_makes_no_name_has_no_template() {
    for kind in ["", "a b", &"x".repeat(120)] {
        let unplaced = choose_for_agent(Strategy::Hybrid, &[], &agent(kind, &[])).unwrap_err();
        assert!(
            unplaced.reason.contains("its template makes no name"),
            "{unplaced:?}"
        );
    }
}

#[test]
fn a_group_of_the_type_whose_work_the_agent_cannot_do_is_better_than_none() {
    let own = GroupFacts {
        waiting: 5,
        wanted_sets: vec![set(&["java"])],
        ..group("qa_engineers_consumers", "qa_engineers")
    };
    let other = GroupFacts {
        waiting: 1,
        wanted_sets: vec![set(&["rust"])],
        ..group("z", "poets")
    };
    let wanted = agent("qa", &["rust"]);
    for strategy in [Strategy::CapabilityBased, Strategy::WorkloadBased] {
        let both = [own.clone(), other.clone()];
        assert_eq!(chosen(strategy, &both, &wanted).group, "z", "{strategy}");
        let choice = chosen(strategy, std::slice::from_ref(&own), &wanted);
        assert_eq!(choice.group, "qa_engineers_consumers");
        assert!(choice.reason.contains("the agent can do nothing of it"));
    }
}

/// Groups of few types, with few capabilities, full and empty, in any state.
fn groups() -> impl proptest::strategy::Strategy<Value = Vec<GroupFacts>> {
    let figures = (
        (0..5_usize, 0..5_usize, 0..4_usize),
        (prop_oneof![0..3_u64, 0..500_u64, any::<u64>()], 0..20_u64),
        (0..4_u32, 1..4_u32),
        (sets(), sets()),
        0..4_usize,
    );
    proptest::collection::vec(figures, 0..7).prop_map(|all| {
        const TYPES: [&str; 5] = ["qa", "qa_engineers", "poets", "x", "renderers"];
        const NAMES: [&str; 5] = ["qa_engineers_consumers", "qa", "g", "h", "x_consumers"];
        let mut found: Vec<GroupFacts> = all
            .into_iter()
            .map(
                |((kind, name, stream), work, places, can, state)| GroupFacts {
                    name: NAMES[name].to_owned(),
                    stream: format!("agent_messages:{}", TYPES[stream]),
                    agent_type: TYPES[kind].to_owned(),
                    waiting: work.0,
                    pending: work.1,
                    live_consumers: places.0,
                    max_consumers: places.1,
                    capabilities: can.0,
                    wanted_sets: can.1,
                    state: GroupState::ALL[state],
                },
            )
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        found
    })
}

fn sets() -> impl proptest::strategy::Strategy<Value = Vec<CapabilitySet>> {
    proptest::collection::vec(able(), 0..3)
}

fn able() -> impl proptest::strategy::Strategy<Value = CapabilitySet> {
    proptest::collection::vec("[a-c]", 0..3).prop_map(CapabilitySet::from)
}

fn agents() -> impl proptest::strategy::Strategy<Value = AgentWanted> {
    let kinds = prop_oneof![
        Just("qa"),
        Just("qa_engineers"),
        Just("x"),
        Just("new"),
        Just("")
    ];
    (kinds, able()).prop_map(|(kind, capabilities)| AgentWanted {
        agent_type: kind.to_owned(),
        capabilities,
    })
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    proptest::sample::select(Strategy::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_choice_is_the_same_in_any_order(
        strategy in strategies(), facts in groups(), wanted in agents(), shift in 0..7_usize,
    ) {
        let mut other = facts.clone();
        other.reverse();
        let middle = shift.min(other.len());
        other.rotate_left(middle);
        prop_assert_eq!(
            choose_for_agent(strategy, &other, &wanted),
            choose_for_agent(strategy, &facts, &wanted)
        );
    }

    #[test]
    fn a_chosen_group_has_a_place_or_is_free_to_be_made(
        strategy in strategies(), facts in groups(), wanted in agents(),
    ) {
        let live = |name: &str| facts.iter().find(|group| {
            group.name == name && group.state != GroupState::Deleting
        });
        match choose_for_agent(strategy, &facts, &wanted) {
            Ok(AgentChoice { group, made_from: None, scores, .. }) => {
                let facts = live(&group);
                prop_assert!(facts.is_some_and(|f| f.live_consumers < f.max_consumers));
                prop_assert_eq!(&scores[0].group, &group);
                prop_assert!(scores[0].score > 0);
            },
            Ok(AgentChoice { group, made_from: Some(made), scores, .. }) => {
                prop_assert_eq!(&made.group, &group);
                prop_assert_eq!(&made, &template(&wanted.agent_type));
                prop_assert!(live(&group).is_none());
                prop_assert!(scores.iter().all(|score| score.score < FIT_MIN));
            },
            Err(unplaced) => {
                prop_assert!(unplaced.scores.iter().all(|score| score.score == 0));
            },
        }
    }

    #[test]
    fn scores_are_bounded_and_in_order(
        strategy in strategies(), facts in groups(), wanted in agents(),
    ) {
        let scores = scores(strategy, &facts, &wanted);
        prop_assert!(scores.iter().all(|score| score.score <= SCORE_MAX));
        prop_assert!(scores.iter().all(|score| !score.reason.is_empty()));
        prop_assert!(scores.is_sorted_by_key(|score| (Reverse(score.score), &score.group)));
    }

    #[test]
    fn more_waiting_work_never_lowers_the_score_of_a_group(
        strategy in prop_oneof![Just(Strategy::WorkloadBased), Just(Strategy::Hybrid)],
        facts in groups(), wanted in agents(), more in 0..1_000_u64,
    ) {
        for group in &facts {
            let mut busier = group.clone();
            busier.waiting = busier.waiting.saturating_add(more);
            let before = score(strategy, group, &wanted);
            prop_assert!(score(strategy, &busier, &wanted).score >= before.score);
        }
    }

    #[test]
    fn a_reason_names_the_numbers(facts in groups(), wanted in agents()) {
        for group in &facts {
            let told = score(Strategy::Hybrid, group, &wanted).reason;
            let numbers = if is_full(group) {
                format!("{} of {} consumers", group.live_consumers, group.max_consumers)
            } else {
                let work = u128::from(group.waiting) + u128::from(group.pending);
                match (work, group.live_consumers) {
                    (0, live) => format!("no work for {live} consumers"),
                    (_, 0) => format!("{work} messages and no consumer"),
                    (_, live) => format!("{work} messages for {live} consumers"),
                }
            };
            prop_assert!(told.contains(&numbers), "{told}");
        }
    }

    #[test]
    fn nobody_goes_where_it_can_do_nothing_while_it_can_do_something_elsewhere(
        strategy in prop_oneof![Just(Strategy::CapabilityBased), Just(Strategy::WorkloadBased)],
        facts in groups(), wanted in agents(),
    ) {
        let can_do = |group: &GroupFacts| {
            group.wanted_sets.iter().any(|set| wanted.capabilities.covers(set))
        };
        let Ok(choice) = choose_for_agent(strategy, &facts, &wanted) else { return Ok(()) };
        let own = facts.iter().find(|group| group.name == choice.group);
        let has_work = |group: &GroupFacts| group.waiting > 0 || group.pending > 0;
        let is_open = |group: &&GroupFacts| {
            group.state != GroupState::Deleting && !is_full(group) && has_work(group)
        };
        let is_elsewhere = facts.iter().filter(is_open).any(can_do);
        if choice.made_from.is_none()
            && own.is_some_and(|own| !own.wanted_sets.is_empty() && !can_do(own))
        {
            prop_assert!(!is_elsewhere, "{choice:?}");
        }
    }
}
