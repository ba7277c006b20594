//! The reference of all metrics is what the tables of the daemons say, and the dashboard and the
//! alerts ask for nothing else.

use std::{collections::BTreeSet, fs};

use hive_runtime::metrics::{MetricDef, MetricKind, chassis, reference};
use serde_json::Value;

const HEAD: &str = "# Metrics

Each daemon has an admin port (`server.admin_listen`) that answers `GET /metrics` in the text format
of Prometheus. Scraping reads nothing from Redis: what it costs does not grow with the load. No
label is an id: what is told of each group has its namespace and its name, and goes when the group
does.

Figures of a group come from Redis, which counts them in the same step as it does the work, so they
outlive every daemon and drift from nothing. The coordinator that owns a group tells them; while a
group changes its owner two may do so for a moment, so queries take the `max by (namespace, group)`
over coordinators, never the sum. Where a group is deleted and made again its totals begin anew.
Counters of a daemon are its own: they begin at zero when it starts, and what it did since the last
scrape is lost when it is killed.
";

/// Title, text and metrics of each table.
fn tables() -> [(&'static str, &'static str, &'static [&'static [MetricDef]]); 5] {
    [
        (
            "Every daemon",
            "The process and its tasks.",
            &[chassis::TABLE],
        ),
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
    ]
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    for (title, about, table) in tables() {
        text.push_str(&format!("\n## {title}\n\n{about}\n\n{}", reference(table)));
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

/// Every series that the daemons may show, the parts of histograms among them.
fn series() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let tables = tables();
    for def in tables
        .iter()
        .flat_map(|(_, _, tables)| tables.iter().copied().flatten())
    {
        match def.kind {
            MetricKind::Histogram { .. } => {
                for part in ["_bucket", "_sum", "_count"] {
                    names.insert(format!("{}{part}", def.name));
                }
            },
            MetricKind::Counter | MetricKind::Total | MetricKind::Gauge => {
                names.insert(def.name.to_owned());
            },
        }
    }
    names
}

/// Checks that an expression asks for nothing that no daemon shows. Whether it parses is checked by
/// `scripts/observability`, by Prometheus itself.
fn check(place: &str, expression: &str) {
    let known = series();
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let mut asked = words.filter(|word| word.starts_with("hive_")).peekable();
    assert!(
        asked.peek().is_some(),
        "{place}: `{expression}` asks for nothing"
    );
    for word in asked {
        assert!(known.contains(word), "{place}: no daemon shows `{word}`");
    }
}

fn read(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_panel_asks_for_what_daemons_show() {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/agent-hive.json")).expect("a dashboard");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() >= 10, "{} panels", panels.len());
    let mut titles = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let place = (title, panel["type"].as_str().expect("a type"));
        assert_ne!(place.1, "row", "rows hide panels");
        assert!(titles.insert(place), "two panels are called `{title}`");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "`{title}` asks for nothing");
        for target in targets {
            check(title, target["expr"].as_str().expect("an expression"));
        }
    }
}

/// Alerts with their expressions and where their runbooks are, as they stand in the file.
fn alerts() -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let mut in_expression = false;
    for line in read("deploy/prometheus/alerts.yaml").lines() {
        let text = line.trim_start();
        if let Some(name) = text.strip_prefix("- alert: ") {
            found.push((name.to_owned(), String::new(), String::new()));
            in_expression = false;
            continue;
        }
        let Some((_, expression, runbook)) = found.last_mut() else {
            continue;
        };
        if let Some(one) = text.strip_prefix("expr: ") {
            in_expression = one == "|";
            if !in_expression {
                one.clone_into(expression);
            }
        } else if let Some(page) = text.strip_prefix("runbook_url: ") {
            page.clone_into(runbook);
        } else if line.starts_with("          ") && in_expression {
            expression.push_str(text);
            expression.push(' ');
        } else {
            in_expression = false;
        }
    }
    found
}

#[test]
fn every_alert_asks_for_what_daemons_show_and_has_a_runbook() {
    let runbooks = read("docs/runbooks.md");
    let tests = read("deploy/prometheus/alerts-test.yaml");
    let alerts = alerts();
    assert!(alerts.len() >= 9, "{alerts:?}");
    for (name, expression, runbook) in &alerts {
        check(name, expression);
        assert_eq!(
            *runbook,
            format!("docs/runbooks.md#{}", name.to_lowercase())
        );
        assert!(
            runbooks.contains(&format!("\n## {name}\n")),
            "no runbook `{name}`"
        );
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "`{name}` is not tested"
        );
    }
    let pages = runbooks.lines().filter_map(|line| line.strip_prefix("## "));
    for page in pages {
        assert!(
            alerts.iter().any(|(name, ..)| name == page),
            "no alert `{page}`"
        );
    }
}
