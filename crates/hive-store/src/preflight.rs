//! Is this Redis fit to keep accepted work? Asked at start, and by `hive doctor`.

use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Works, with a loss of something.
    Warning,
    /// A daemon refuses to start on it.
    Refusal,
}

/// One thing that the preflight found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable word, e.g. `eviction`.
    pub topic: &'static str,
    /// What is so, what it means, and what to do.
    pub text: String,
}

impl Store {
    /// Looks at the server: version, eviction, persistence, memory, clock.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn preflight(&self) -> Result<Vec<Finding>, StoreError> {
        let server = self.info("server").await?;
        let memory = self.info("memory").await?;
        let persistence = self.info("persistence").await?;
        let of = |rows: &[(String, String)], name: &str| {
            rows.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        let mut findings = Vec::new();
        let version = of(&server, "redis_version").unwrap_or_default();
        let name = of(&server, "server_name").unwrap_or_else(|| "redis".into());
        let version = of(&server, "valkey_version").unwrap_or(version);
        findings.push(info("server", format!("{name} {version}")));
        let policy = of(&memory, "maxmemory_policy").unwrap_or_default();
        if policy == "noeviction" {
            findings.push(info("eviction", "maxmemory-policy is noeviction".into()));
        } else {
            findings.push(Finding {
                severity: Severity::Refusal,
                topic: "eviction",
                text: format!(
                    "maxmemory-policy `{policy}` lets Redis delete accepted messages; \
                     set `maxmemory-policy noeviction`"
                ),
            });
        }
        if of(&persistence, "aof_enabled").as_deref() == Some("1") {
            let policy = self.setting("appendfsync").await?;
            findings.push(info(
                "persistence",
                format!("append-only file, appendfsync {policy}"),
            ));
        } else {
            findings.push(Finding {
                severity: Severity::Warning,
                topic: "persistence",
                text: "no append-only file: a restart of Redis loses what was accepted since its \
                       last snapshot; set `appendonly yes`"
                    .into(),
            });
        }
        let limit = of(&memory, "maxmemory")
            .and_then(|v| v.parse::<u64>().ok())
            .unwrap_or(0);
        let used = of(&memory, "used_memory")
            .and_then(|v| v.parse::<u64>().ok())
            .unwrap_or(0);
        if limit > 0 && used > limit / 10 * 9 {
            findings.push(Finding {
                severity: Severity::Warning,
                topic: "memory",
                text: format!(
                    "{used} of {limit} bytes are used: publishes are refused at the limit; \
                     raise maxmemory, or shorten retention"
                ),
            });
        }
        Ok(findings)
    }

    async fn setting(&self, name: &str) -> Result<String, StoreError> {
        let mut get = Cmd::new();
        get.arg("CONFIG").arg("GET").arg(name);
        let mut parts = self
            .command(Purpose::Control, get)
            .await?
            .list()?
            .into_iter();
        let _ = parts.next();
        parts
            .next()
            .map_or(Ok("unknown".into()), crate::reply::Reply::text)
    }
}

fn info(topic: &'static str, text: String) -> Finding {
    Finding {
        severity: Severity::Info,
        topic,
        text,
    }
}
