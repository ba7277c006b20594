//! The reference of all metrics is what the tables of the daemons say.

use std::fs;

use hive_runtime::metrics::{MetricDef, chassis, reference};

const HEAD: &str = "# Metrics

Each daemon has an admin port (`server.admin_listen`) that answers `GET /metrics` in the text format
of Prometheus. Scraping reads nothing from Redis: what it costs does not grow with the load. No label
is an id: what is told of each group has its namespace and its name, and goes when the group does.

Figures of a group come from Redis, which counts them in the same step as it does the work, so they
outlive every daemon and drift from nothing. The coordinator that owns a group tells them; while a
group changes its owner two may do so for a moment, so queries take the `max by (namespace, group)`
over coordinators, never the sum. Where a group is deleted and made again its totals begin anew.
Counters of a daemon are its own: they begin at zero when it starts, and what it did since the last
scrape is lost when it is killed.
";

fn page() -> String {
    let tables: [(&str, &str, &[MetricDef]); 5] = [
        ("Every daemon", "The process and its tasks.", chassis::TABLE),
        (
            "hive-gateway",
            "The door: publishes, deliveries, outcomes.",
            hive_gateway::DAEMON.metrics,
        ),
        (
            "hive-coordinator",
            "Groups, recovery, scaling, Redis.",
            hive_coordinator::DAEMON.metrics,
        ),
        ("hive-router", "Workflows.", hive_router::DAEMON.metrics),
        ("hive-dlq", "Dead letters.", hive_dlq::DAEMON.metrics),
    ];
    let mut text = HEAD.to_owned();
    for (title, about, table) in tables {
        text.push_str(&format!(
            "\n## {title}\n\n{about}\n\n{}",
            reference(&[table])
        ));
    }
    text
}

/// With `UPDATE_REFERENCE` in the environment the page is written anew.
#[test]
fn the_page_of_metrics_shows_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), page());
}
