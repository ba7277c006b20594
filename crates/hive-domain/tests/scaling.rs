//! Which strategy waits how long at what cost, over 20 seeds a shape of load.
//!
//! `cargo test -p hive-domain --test scaling -- --nocapture` prints the table of docs/scaling.md.

use std::thread;

use hive_domain::scaling::simulate::{Load, Outcome, Row, Scaler, Shape, World, compare, table};

const SEEDS: u64 = 20;

/// What each scaler makes of a shape, each in a thread of its own; the loads are the same for all.
fn rows(shape: Shape) -> Vec<Row> {
    let loads: Vec<(u64, Load)> = (1..=SEEDS).map(|seed| (seed, shape.load(seed))).collect();
    let (world, loads) = (&World::of(shape), &loads);
    thread::scope(|scope| {
        let started =
            Scaler::ALL.map(|scaler| scope.spawn(move || compare(world, loads, &[scaler])));
        let rows = started.map(|rows| rows.join().expect("a run does not panic"));
        rows.concat()
    })
}

fn of(rows: &[Row], scaler: Scaler) -> Outcome {
    let row = rows.iter().find(|row| row.scaler == scaler);
    row.expect("all scalers were compared").outcome
}

/// Whether `value` is at most `percent` of a hundred of `than`.
fn is_within(value: u64, percent: u64, than: u64) -> bool {
    value * 100 <= than * percent
}

#[test]
fn hybrid_waits_less_than_reactive_for_little_more_and_interrupts_nothing() {
    let shapes = Shape::ALL.map(|shape| (shape, rows(shape)));
    let named = shapes
        .clone()
        .map(|(shape, rows)| (shape.to_string(), rows));
    println!("{}", table(&named));
    for (shape, rows) in shapes {
        for Row { scaler, outcome } in &rows {
            assert_eq!(outcome.interrupted, 0, "{shape} {scaler}");
        }
        let (hybrid, reactive) = (of(&rows, Scaler::Hybrid), of(&rows, Scaler::Reactive));
        let (wait, was) = (hybrid.mean_wait_ms, reactive.mean_wait_ms);
        let (cost, cost_was) = (hybrid.consumer_seconds, reactive.consumer_seconds);
        match shape {
            Shape::Burst | Shape::Ramp | Shape::DailyWave => {
                assert!(wait < was, "{shape}: {wait} ms against {was} ms");
                assert!(
                    is_within(cost, 110, cost_was),
                    "{shape}: {cost} s against {cost_was} s"
                );
            },
            Shape::Steady | Shape::Sawtooth | Shape::Outage => {
                assert!(
                    is_within(wait, 105, was),
                    "{shape}: {wait} ms against {was} ms"
                );
                assert!(
                    is_within(cost, 105, cost_was),
                    "{shape}: {cost} s against {cost_was} s"
                );
            },
        }
    }
}

#[test]
fn a_recorded_load_is_scaled_as_one_by_shape() {
    let shaped = Shape::Burst.load(1);
    let counts = shaped.arrivals.iter().copied();
    let rows: Vec<(u64, u32)> = (1_800_000_000..).zip(counts).collect();
    let recorded = Load::recorded(&rows);
    assert_eq!(recorded, shaped);
    let world = World::of(Shape::Burst);
    let [row] = compare(&world, &[(1, recorded)], &[Scaler::Hybrid])[..] else {
        panic!("one scaler makes one row");
    };
    assert!(row.outcome.messages > 15_000, "{:?}", row.outcome);
    assert!(row.outcome.peak <= world.limits.max, "{:?}", row.outcome);
}
