//! Laws of plans, checked by carrying them out, and rows of single cases.

use proptest::prelude::*;

use super::*;

fn holding(consumer: &str, held: u32, begun: u32, concurrency: u32) -> Holding {
    Holding {
        consumer: consumer.to_owned(),
        held,
        begun,
        room: 100,
        concurrency,
        max_in_flight: 200,
        idle_ms: 0,
        capabilities: CapabilitySet::new(),
        draining: false,
        accepts_offers: false,
    }
}

/// What consumers hold once a plan is carried out: windows of givers do not grow.
fn carried_out(holdings: &[Holding], plan: &Plan) -> Vec<Holding> {
    let mut after = holdings.to_vec();
    for step in &plan.moves {
        let of = |id: &str| after.iter().position(|h| h.consumer == id).unwrap();
        let (from, to) = (of(&step.from), of(&step.to));
        after[from].held -= step.count;
        after[to].held += step.count;
        after[to].room -= step.count;
    }
    after
}

fn held(holdings: &[Holding]) -> Vec<u32> {
    holdings.iter().map(|h| h.held).collect()
}

fn told(plan: &Plan) -> Vec<(&str, &str, u32)> {
    let moves = plan.moves.iter();
    moves
        .map(|step| (&*step.from, &*step.to, step.count))
        .collect()
}

#[test]
fn a_hoarder_among_nine_idle_ends_even() {
    let mut holdings = vec![holding("hoarder", 100, 1, 1)];
    holdings.extend((0..9).map(|n| holding(&format!("idle-{n}"), 0, 0, 1)));
    let plan = plan(&holdings);
    assert_eq!(held(&carried_out(&holdings, &plan)), [10; 10]);
    assert_eq!(plan.moves.len(), 9);
    assert_eq!(
        plan.moves[0].reason,
        "`hoarder` holds 100 (1 begun), its share is 10; `idle-0` holds 0 with room for 100 and \
         works on 1 at once, its share is 10"
    );
    assert_eq!(plan.left, Vec::<String>::new());
}

#[test]
fn shares_go_by_how_many_messages_a_consumer_works_on_at_once() {
    let holdings = [holding("a", 90, 1, 1), holding("b", 0, 0, 8)];
    let after = carried_out(&holdings, &plan(&holdings));
    assert_eq!(held(&after), [10, 80]);
}

#[test]
fn a_free_slot_is_always_worth_one_message() {
    let holdings = [holding("a", 2, 1, 1), holding("b", 0, 0, 1)];
    assert_eq!(told(&plan(&holdings)), [("a", "b", 1)]);
    // The second message of `a` is within its own slots: it starts there as soon.
    let holdings = [holding("a", 2, 1, 2), holding("b", 0, 0, 1)];
    assert_eq!(plan(&holdings), Plan::default());
}

#[test]
fn nothing_moves_for_a_gain_of_one_message_among_busy_consumers() {
    for (a, b, moved) in [(3, 1, 0), (4, 1, 0), (5, 1, 2), (12, 10, 0), (14, 12, 0)] {
        let holdings = [holding("a", a, 1, 1), holding("b", b, 1, 1)];
        let count: u32 = plan(&holdings).moves.iter().map(|step| step.count).sum();
        assert_eq!(count, moved, "{a} and {b}");
    }
}

#[test]
fn what_does_not_pay_is_said() {
    let holdings = [holding("a", 120, 1, 1), holding("b", 100, 1, 1)];
    let plan = plan(&holdings);
    assert_eq!(plan.moves, []);
    assert_eq!(
        plan.left,
        ["`a` holds 120 and `b` 100: evening that out would not pay for the moves"]
    );
}

#[test]
fn who_gains_too_little_keeps_what_it_has() {
    // Only between `a` and `d` a move pays; level over all would be 14 for each.
    let holdings = [
        holding("a", 17, 1, 1),
        holding("b", 14, 1, 1),
        holding("c", 13, 1, 1),
        holding("d", 12, 1, 1),
    ];
    let after = carried_out(&holdings, &plan(&holdings));
    assert_eq!(held(&after), [15, 14, 13, 14]);
}

#[test]
fn a_draining_consumer_gives_all_that_it_has_not_begun_and_gets_nothing() {
    let mut leaving = holding("a", 6, 2, 2);
    leaving.draining = true;
    let mut idle_leaving = holding("b", 0, 0, 2);
    idle_leaving.draining = true;
    let holdings = [leaving.clone(), idle_leaving, holding("c", 9, 1, 1)];
    let plan = plan(&holdings);
    assert_eq!(told(&plan), [("a", "c", 4)]);
    assert!(
        plan.moves[0]
            .reason
            .starts_with("`a` drains and holds 6 (2 begun); `c` holds 9")
    );
    let full = Holding {
        room: 1,
        ..holding("c", 9, 1, 1)
    };
    let plan = super::plan(&[leaving, full]);
    assert_eq!(told(&plan), [("a", "c", 1)]);
    assert_eq!(
        plan.left,
        ["3 messages that `a`, which drains, has not begun stay: nobody has room"]
    );
}

#[test]
fn an_idle_consumer_without_room_is_told() {
    let full = Holding {
        room: 0,
        ..holding("b", 0, 0, 1)
    };
    let plan = plan(&[holding("a", 9, 1, 1), full]);
    assert_eq!(plan.moves, []);
    assert_eq!(
        plan.left,
        ["`b` holds 0 of the 1 that it works on at once, and has no room for more"]
    );
}

#[test]
fn who_can_do_what_the_giver_can_gets_its_messages_first() {
    let able = |consumer: &str, held, names: &[&str]| Holding {
        capabilities: names.iter().map(|name| (*name).to_owned()).collect(),
        ..holding(consumer, held, held.min(1), 1)
    };
    let holdings = [
        able("a", 8, &["gpu"]),
        able("b", 8, &[]),
        able("c", 0, &[]),
        able("d", 0, &["gpu", "rust"]),
    ];
    let plan = plan(&holdings);
    assert_eq!(told(&plan), [("a", "d", 4), ("b", "c", 4)]);
    let plan = super::plan(&[able("a", 2, &["gpu"]), able("c", 0, &[])]);
    assert!(
        plan.moves[0]
            .reason
            .ends_with("; messages that require more than it can do go to others")
    );
}

#[test]
fn counts_alone_say_whether_something_is_uneven() {
    let rows: [(&[(u32, u32)], bool); 10] = [
        (&[], false),
        (&[(100, 1)], false),
        (&[(2, 1), (0, 1)], true),
        (&[(1, 1), (0, 1)], false),
        (&[(8, 8), (0, 8)], false),
        (&[(5, 1), (1, 1)], false),
        (&[(6, 1), (1, 1)], true),
        (&[(12, 1), (6, 1)], false),
        (&[(13, 1), (6, 1)], true),
        (&[(250, 100), (1, 1)], false),
    ];
    for (held, is_so) in rows {
        assert_eq!(is_uneven(held), is_so, "{held:?}");
    }
}

/// Loads as they come: few or many messages, slots alike or not, little or much room.
fn loads() -> impl Strategy<Value = Vec<Holding>> {
    let figures = (
        prop_oneof![0..6_u32, 0..200_u32],
        0..6_u32,
        prop_oneof![Just(0), 0..10_u32, Just(500)],
        prop_oneof![Just(1_u32), 0..5_u32, 1..300_u32],
        prop::bool::weighted(0.2),
        0..3_usize,
    );
    proptest::collection::vec(figures, 0..8).prop_map(|all| {
        let names = ["cuda".to_owned(), "gpu".to_owned()];
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(n, (held, begun, room, slots, draining, able))| Holding {
                room,
                draining,
                capabilities: names[..able].iter().cloned().collect(),
                ..holding(&format!("c{n}"), held, begun.min(held), slots)
            })
            .collect()
    })
}

/// Loads in which all that counts alone say can be done: room for all, nobody drains, nobody has
/// begun more than it works on at once.
fn open_loads() -> impl Strategy<Value = Vec<Holding>> {
    loads().prop_map(|mut all| {
        for load in &mut all {
            load.room = 2_000;
            load.draining = false;
            load.begun = load.begun.min(load.concurrency.max(1));
        }
        all
    })
}

fn counts(holdings: &[Holding]) -> Vec<(u32, u32)> {
    holdings.iter().map(|h| (h.held, h.concurrency)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_second_plan_moves_nothing(holdings in loads()) {
        let after = carried_out(&holdings, &plan(&holdings));
        prop_assert_eq!(plan(&after).moves, vec![]);
    }

    #[test]
    fn what_is_begun_stays_and_nobody_gets_more_than_fits(holdings in loads()) {
        let plan = plan(&holdings);
        let total = |all: &[Holding]| held(all).iter().sum::<u32>();
        // Taking more than there is or fits would underflow there.
        let after = carried_out(&holdings, &plan);
        prop_assert_eq!(total(&after), total(&holdings));
        for (before, after) in holdings.iter().zip(&after) {
            prop_assert!(after.held >= before.begun);
            prop_assert!(after.held <= before.held + before.room);
            prop_assert!(!before.draining || after.held <= before.held);
        }
        let gives = |id: &str| plan.moves.iter().any(|step| step.from == id);
        let takes = |id: &str| plan.moves.iter().any(|step| step.to == id);
        for step in &plan.moves {
            prop_assert!(step.count > 0 && !step.reason.is_empty());
            prop_assert!(!takes(&step.from) && !gives(&step.to));
        }
    }

    #[test]
    fn what_drains_gives_all_it_can(holdings in loads()) {
        let after = carried_out(&holdings, &plan(&holdings));
        let keeps = after.iter().any(|h| h.draining && h.held > h.begun);
        let room: u32 = holdings.iter().filter(|h| !h.draining).map(|h| h.room).sum();
        let given: u32 = holdings
            .iter()
            .zip(&after)
            .filter(|(before, _)| before.draining)
            .map(|(before, after)| before.held - after.held)
            .sum();
        prop_assert!(!keeps || given == room);
    }

    #[test]
    fn the_order_of_the_holdings_does_not_matter(
        holdings in loads(), shift in 0..8_usize, is_reversed: bool,
    ) {
        let mut other = holdings.clone();
        let middle = shift.min(other.len());
        other.rotate_left(middle);
        if is_reversed {
            other.reverse();
        }
        prop_assert_eq!(plan(&other), plan(&holdings));
    }

    #[test]
    fn nothing_looks_uneven_after_a_plan(holdings in open_loads()) {
        let after = carried_out(&holdings, &plan(&holdings));
        prop_assert!(!is_uneven(&counts(&after)), "{:?}", counts(&after));
    }

    #[test]
    fn what_looks_uneven_is_worth_a_plan(holdings in open_loads()) {
        if is_uneven(&counts(&holdings)) {
            prop_assert!(!plan(&holdings).moves.is_empty());
        }
    }

    #[test]
    fn a_free_slot_is_filled_while_others_hold_more_than_they_work_on(holdings in open_loads()) {
        let after = carried_out(&holdings, &plan(&holdings));
        let slots = |h: &Holding| h.concurrency.max(1);
        let is_free = after.iter().any(|h| h.held < slots(h));
        let is_over = after.iter().any(|h| h.held > slots(h));
        prop_assert!(!(is_free && is_over), "{:?}", counts(&after));
    }

    #[test]
    fn a_move_between_busy_consumers_never_makes_the_fullest_fuller(holdings in open_loads()) {
        let after = carried_out(&holdings, &plan(&holdings));
        let fullest = |all: &[Holding]| {
            // Thousandths of a message for each slot, rounded up.
            let of = |h: &Holding| (h.held * 1_000).div_ceil(h.concurrency.max(1));
            all.iter().map(of).max()
        };
        prop_assert!(fullest(&after) <= fullest(&holdings));
    }

    #[test]
    fn any_figures_have_a_plan(
        figures in proptest::collection::vec(any::<(u32, u32, u32, u32, bool)>(), 0..6),
    ) {
        let holdings: Vec<Holding> = figures
            .into_iter()
            .enumerate()
            .map(|(n, (held, begun, room, slots, draining))| Holding {
                room,
                draining,
                ..holding(&format!("c{}", n / 2), held, begun, slots)
            })
            .collect();
        let first = plan(&holdings);
        prop_assert_eq!(&plan(&holdings), &first);
        prop_assert!(!is_uneven(&counts(&holdings)) || holdings.len() > 1);
    }
}
