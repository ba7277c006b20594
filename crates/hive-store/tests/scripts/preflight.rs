//! The preflight on servers that do not allow everything.

use hive_store::{
    Store, StoreConfig,
    preflight::{Finding, Severity},
};
use hive_testkit::redis::{Aof, RedisServer};

async fn findings(without: &str) -> Vec<Finding> {
    let redis = RedisServer::builder().aof(Aof::Everysec).start().await;
    let redis = redis.expect("a redis server");
    let mut raw = redis.connect().await.expect("a connection");
    let mut limit = redis::cmd("ACL");
    limit.arg("SETUSER").arg("default").arg(without);
    limit.exec_async(&mut raw).await.expect("an answer");
    let config = StoreConfig {
        url: redis.url(),
        ..StoreConfig::default()
    };
    let store = Store::open(config).expect("a url");
    store.preflight().await.expect("a report")
}

fn of_topic<'a>(findings: &'a [Finding], topic: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.topic == topic);
    found.unwrap_or_else(|| panic!("nothing of {topic}: {findings:?}"))
}

#[tokio::test]
async fn a_server_that_does_not_tell_its_settings_is_fit_with_a_warning() {
    let findings = findings("-config").await;
    assert_eq!(
        of_topic(&findings, "persistence").severity,
        Severity::Warning
    );
    for topic in ["server", "eviction", "durability", "clock"] {
        assert_eq!(
            of_topic(&findings, topic).severity,
            Severity::Info,
            "{topic}"
        );
    }
}

#[tokio::test]
async fn a_server_that_takes_no_scripts_is_refused_instead_of_waited_for() {
    let findings = findings("-script").await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(of_topic(&findings, "scripts").severity, Severity::Refusal);
}
