//! What `hive doctor` asks a Redis itself: the preflight of the daemons, with its advice.

use hive_store::{
    Store, StoreConfig, StoreError,
    preflight::{self, Severity},
};

use super::{Finding, Level, loss};

/// How findings of the Redis are named. Its URL is not shown: a password may be in it.
pub(super) const WHAT: &str = "redis";

/// Looks at the Redis; one that does not answer is a finding.
pub(super) async fn look(url: &str, prefix: &str) -> Vec<Finding> {
    match ask(url, prefix).await {
        Ok(findings) => findings,
        Err(error) => {
            let advice = "is --redis-url right, and the server running?";
            let finding = Finding::new(Level::Trouble, WHAT, error.to_string(), advice);
            vec![finding]
        },
    }
}

async fn ask(url: &str, prefix: &str) -> Result<Vec<Finding>, StoreError> {
    let store = Store::open(StoreConfig {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        ..StoreConfig::default()
    })?;
    let report = store.preflight().await?;
    let mut findings: Vec<Finding> = report.iter().map(shown).collect();
    // Without scripts nothing else can be asked.
    let is_refused = |one: &preflight::Finding| one.severity == Severity::Refusal;
    if !report.iter().any(is_refused) && store.is_loss_marked().await? {
        let finding = "dataset: a daemon found that the data it knew is gone, and all of them stop";
        findings.push(Finding::new(Level::Trouble, WHAT, finding, loss::ADVICE));
    }
    Ok(findings)
}

fn shown(finding: &preflight::Finding) -> Finding {
    let level = match finding.severity {
        Severity::Info => Level::Well,
        Severity::Warning => Level::Note,
        Severity::Refusal => Level::Trouble,
    };
    let text = format!("{}: {}", finding.topic, finding.found);
    Finding::new(level, WHAT, text, finding.advice)
}
