//! Tests of what is scraped before anything has happened, and of the rows of the reference.

use super::*;

const REASONS: &[&str] = &["full", "paused"];
const ACKED: MetricDef = MetricDef {
    name: "hive_messages_acked_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Messages whose handler succeeded",
    labels: &[Label::open("group")],
};
const SHED: MetricDef = MetricDef {
    name: "hive_messages_shed_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Messages refused",
    labels: &[
        Label::of("reason", REASONS),
        Label::of("door", &["grpc", "rest"]),
    ],
};
const WAIT: MetricDef = MetricDef {
    name: "hive_wait_seconds",
    kind: MetricKind::Histogram {
        buckets: &[0.1, 1.0],
    },
    unit: Unit::Seconds,
    help: "Time from publish to delivery",
    labels: &[],
};
const TABLE: &[MetricDef] = &[ACKED, SHED, WAIT];

#[test]
fn every_series_whose_labels_are_known_starts_at_zero() {
    let text = Scrape::detached(&[TABLE]).render();
    for reason in REASONS {
        for door in ["grpc", "rest"] {
            let line =
                format!("hive_messages_shed_total{{reason=\"{reason}\",door=\"{door}\"}} 0\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
    assert!(
        text.contains("hive_wait_seconds_bucket{le=\"0.1\"} 0\n"),
        "{text}"
    );
    assert!(text.contains("hive_wait_seconds_count 0\n"), "{text}");
    assert!(
        text.contains("# HELP hive_messages_shed_total Messages refused\n"),
        "{text}"
    );
}

#[test]
fn a_series_with_an_open_label_appears_only_with_its_value() {
    let text = Scrape::detached(&[TABLE]).render();
    assert!(!text.contains("hive_messages_acked_total{"), "{text}");
}

#[test]
fn instruments_count_in_the_series_of_their_labels() {
    let recorder = builder(&[TABLE]).build_recorder();
    metrics::with_local_recorder(&recorder, || {
        Counter::new(&ACKED, &["workers"]).increment(2);
        Histogram::new(&WAIT, &[]).record(0.5);
    });
    let text = recorder.handle().render();
    assert!(
        text.contains("hive_messages_acked_total{group=\"workers\"} 2\n"),
        "{text}"
    );
    assert!(
        text.contains("hive_wait_seconds_bucket{le=\"1\"} 1\n"),
        "{text}"
    );
}

#[test]
#[should_panic(expected = "metric `hive_wait_seconds` is declared as a histogram")]
fn an_instrument_of_another_kind_than_declared_is_a_broken_invariant() {
    drop(Counter::new(&WAIT, &[]));
}

#[test]
#[should_panic(expected = "has 1 labels and was given 0 values")]
fn an_instrument_without_its_labels_is_a_broken_invariant() {
    drop(Counter::new(&ACKED, &[]));
}

#[test]
fn the_chassis_declares_no_name_twice() {
    let mut names: Vec<_> = chassis::TABLE.iter().map(|def| def.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), chassis::TABLE.len());
}

#[test]
fn the_reference_has_a_row_for_each_metric() {
    let expected = "| `hive_messages_shed_total` | counter | count | `reason`, `door` | \
                    Messages refused |\n";
    assert!(reference(&[TABLE]).contains(expected));
}
