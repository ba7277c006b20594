//! Which strategy waits how long at what cost, over 20 seeds a shape of load.
//!
//! `cargo test -p hive-domain --test scaling -- --nocapture` prints the table of docs/scaling.md.

#![expect(
    clippy::print_stdout,
    reason = "the table is what a reader runs this for"
)]

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

/// Compares the scalers under a shape, prints the table, and checks that nothing was interrupted.
fn compared(shape: Shape) -> (Outcome, Outcome) {
    let rows = rows(shape);
    println!("{}", table(&[(shape.to_string(), rows.clone())]));
    for Row { scaler, outcome } in &rows {
        assert_eq!(outcome.interrupted, 0, "{shape} {scaler}");
    }
    (of(&rows, Scaler::Hybrid), of(&rows, Scaler::Reactive))
}

fn waits_less_for_at_most_a_tenth_more(shape: Shape) {
    let (hybrid, reactive) = compared(shape);
    let (wait, was) = (hybrid.mean_wait_ms, reactive.mean_wait_ms);
    assert!(wait < was, "{wait} ms against {was} ms");
    let (cost, was) = (hybrid.consumer_seconds, reactive.consumer_seconds);
    assert!(is_within(cost, 110, was), "{cost} s against {was} s");
}

fn neither_waits_nor_costs_a_twentieth_more(shape: Shape) {
    let (hybrid, reactive) = compared(shape);
    let (wait, was) = (hybrid.mean_wait_ms, reactive.mean_wait_ms);
    assert!(is_within(wait, 105, was), "{wait} ms against {was} ms");
    let (cost, was) = (hybrid.consumer_seconds, reactive.consumer_seconds);
    assert!(is_within(cost, 105, was), "{cost} s against {was} s");
}

#[test]
fn under_bursts_hybrid_waits_less_than_reactive_for_little_more() {
    waits_less_for_at_most_a_tenth_more(Shape::Burst);
}

#[test]
fn under_a_ramp_hybrid_waits_less_than_reactive_for_little_more() {
    waits_less_for_at_most_a_tenth_more(Shape::Ramp);
}

#[test]
fn under_a_daily_wave_hybrid_waits_less_than_reactive_for_little_more() {
    waits_less_for_at_most_a_tenth_more(Shape::DailyWave);
}

#[test]
fn under_a_steady_load_hybrid_is_no_worse_than_reactive() {
    neither_waits_nor_costs_a_twentieth_more(Shape::Steady);
}

#[test]
fn under_a_sawtooth_hybrid_is_no_worse_than_reactive() {
    neither_waits_nor_costs_a_twentieth_more(Shape::Sawtooth);
}

#[test]
fn in_an_outage_hybrid_is_no_worse_than_reactive() {
    neither_waits_nor_costs_a_twentieth_more(Shape::Outage);
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
