//! Who may depend on whom.

use std::process::Command;

use serde_json::Value;

use crate::tree;

/// Each crate with the crates of ours that its code may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("hive-domain", &[]),
    ("hive-protocol", &["hive-domain"]),
    ("hive-store", &["hive-domain", "hive-protocol"]),
    ("hive-runtime", &["hive-protocol"]),
    ("hive-client", &["hive-protocol"]),
    ("hive-gateway", DAEMON),
    ("hive-coordinator", DAEMON),
    ("hive-router", DAEMON),
    ("hive-dlq", DAEMON),
    (
        "hive-cli",
        &[
            "hive-client",
            "hive-domain",
            "hive-protocol",
            "hive-store",
            "hive-runtime",
            "hive-gateway",
            "hive-coordinator",
            "hive-router",
            "hive-dlq",
        ],
    ),
];
const DAEMON: &[&str] = &["hive-domain", "hive-protocol", "hive-store", "hive-runtime"];
/// What any crate's tests may use on top: real servers and the real client.
const TESTS: &[&str] = &["hive-testkit", "hive-client"];
/// Crates for tests alone, free to depend on anything.
const FREE: &[&str] = &["hive-testkit", "hive-tests"];
/// The only crates that may depend on `redis`.
const REDIS: &[&str] = &["hive-store", "hive-testkit", "hive-tests"];

/// Problems in the output of `cargo metadata --no-deps`.
fn check(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"]
        .as_array()
        .expect("metadata lists packages");
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = packages.iter().map(name_of).collect();
    let mut problems = Vec::new();
    for package in packages {
        let name = name_of(package);
        let arrows = ARROWS
            .iter()
            .find(|(from, _)| *from == name)
            .map(|(_, to)| *to);
        if arrows.is_none() && !FREE.contains(&name.as_str()) {
            problems.push(format!("`{name}` is not on the map of arrows"));
            continue;
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = name_of(dependency);
            let is_for_tests = dependency["kind"] == "dev";
            let is_allowed = arrows.is_none_or(|allowed| {
                allowed.contains(&target.as_str())
                    || (is_for_tests && TESTS.contains(&target.as_str()))
            });
            if ours.contains(&target) && !is_allowed {
                problems.push(format!("`{name}` must not depend on `{target}`"));
            }
            if target == "redis" && !REDIS.contains(&name.as_str()) {
                problems.push(format!("`{name}` must not depend on `redis`"));
            }
        }
    }
    problems
}

#[test]
fn crates_depend_along_the_arrows() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(tree::root())
        .output()
        .expect("cargo describes the workspace");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let problems = check(&metadata);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_wrong_arrow_is_found() {
    let package = |name: &str, dependencies: &[(&str, Option<&str>)]| {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, kind)| serde_json::json!({ "name": name, "kind": kind }))
            .collect();
        serde_json::json!({ "name": name, "dependencies": dependencies })
    };
    let metadata = serde_json::json!({ "packages": [
        package("hive-domain", &[("hive-protocol", None), ("serde", None)]),
        package("hive-protocol", &[("hive-domain", None), ("hive-testkit", Some("dev"))]),
        package("hive-gateway", &[("hive-testkit", None), ("redis", Some("dev"))]),
        package("hive-testkit", &[("hive-protocol", None), ("redis", None)]),
        package("hive-new", &[]),
    ] });
    assert_eq!(
        check(&metadata),
        [
            "`hive-domain` must not depend on `hive-protocol`",
            "`hive-gateway` must not depend on `hive-testkit`",
            "`hive-gateway` must not depend on `redis`",
            "`hive-new` is not on the map of arrows",
        ]
    );
}
