//! Which strategy waits how long at what cost, over 20 seeds a shape of load.
//!
//! `cargo test -p hive-domain --test scaling -- --nocapture` prints the table of docs/scaling.md.

use hive_domain::scaling::simulate::{Load, Row, Scaler, Shape, World, compare, table};

const SEEDS: u64 = 20;

fn rows(shape: Shape) -> Vec<Row> {
    let loads: Vec<(u64, Load)> = (1..=SEEDS).map(|seed| (seed, shape.load(seed))).collect();
    compare(&World::of(shape), &loads, &Scaler::ALL)
}

#[test]
fn table_only() {
    let mut all = Vec::new();
    for shape in Shape::ALL {
        if std::env::var("SHAPE").is_ok_and(|s| s != shape.as_str()) {
            continue;
        }
        let t = std::time::Instant::now();
        all.push((shape.to_string(), rows(shape)));
        println!("{shape} {:?}", t.elapsed());
    }
    println!("{}", table(&all));
}
