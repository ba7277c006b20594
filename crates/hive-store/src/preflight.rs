//! Is this Redis fit to keep accepted work? Asked at start, and by `hive doctor`.
//!
//! What it can do is found out by asking for it, never by its version: forks count otherwise. What
//! it does not let us see (a managed Redis has no CONFIG) is told as unknown, and keeps nobody from
//! starting.

use std::time::{SystemTime, UNIX_EPOCH};

use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    reply::Reply,
};

/// A clock further off than this is told, in ms: times in logs and messages would mislead.
const SKEW_MS: u64 = 2_000;
/// Uses what the oldest server that serves has: flags of scripts came with Redis 7.0.
const PROBE: &str = "#!lua flags=allow-oom\nreturn 1";

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
    /// What is so, and what it means.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: &'static str,
}

impl Finding {
    /// All of it as one line.
    #[must_use]
    pub fn text(&self) -> String {
        if self.advice.is_empty() {
            return self.found.clone();
        }
        format!("{}; {}", self.found, self.advice)
    }

    fn new(
        severity: Severity,
        topic: &'static str,
        found: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        Self {
            severity,
            topic,
            found: found.into(),
            advice,
        }
    }
}

/// Sections of INFO, as pairs.
struct Info(Vec<(String, String)>);

impl Info {
    fn get(&self, name: &str) -> Option<&str> {
        let row = self.0.iter().find(|(key, _)| key == name);
        row.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> u64 {
        let value = self.get(name).and_then(|value| value.parse().ok());
        value.unwrap_or_default()
    }
}

impl Store {
    /// Looks at the server: what it can do, eviction, persistence, memory, cluster, clock.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn preflight(&self) -> Result<Vec<Finding>, StoreError> {
        // Before all else: without it, the connections of the message path are never made.
        if let Some(refusal) = self.probe_scripts().await? {
            return Ok(vec![refusal]);
        }
        let mut rows = Vec::new();
        for section in ["server", "memory", "persistence", "cluster"] {
            rows.extend(self.info(section).await?);
        }
        let info = Info(rows);
        let mut findings = vec![server(&info), eviction(&info)];
        let fsync = match info.get("aof_enabled") {
            Some("1") => Some(self.setting("appendfsync").await?),
            Some(_) | None => None,
        };
        findings.push(persistence(fsync));
        findings.push(durability(self.can_be_durable()));
        findings.extend(memory(&info));
        if info.get("cluster_enabled") == Some("1") {
            findings.push(Finding::new(
                Severity::Warning,
                "cluster",
                "this is a node of a Redis Cluster, and this build talks to one server: keys of \
                 other nodes cannot be reached",
                "use a server of its own",
            ));
        }
        findings.push(self.clock_skew().await?);
        Ok(findings)
    }

    /// Whether the server takes our scripts, on a connection that needs none of them.
    async fn probe_scripts(&self) -> Result<Option<Finding>, StoreError> {
        let mut connection = self.bare_connection().await?;
        let loaded = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(PROBE)
            .query_async::<String>(&mut connection)
            .await;
        let error = match loaded.map_err(|error| StoreError::of_command(&error)) {
            Err(error @ StoreError::Refused { .. }) => error,
            Ok(_) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = format!("the server takes no scripts with flags: {error}");
        let advice = "use Redis 7.0 or later, or Valkey, and let its user load and run scripts";
        Ok(Some(Finding::new(
            Severity::Refusal,
            "scripts",
            found,
            advice,
        )))
    }

    /// A setting of the server; none where it does not tell.
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut get = Cmd::new();
        get.arg("CONFIG").arg("GET").arg(name);
        let pair = match self.command(Purpose::Control, get).await {
            Ok(answer) => answer.list()?,
            // Not allowed, renamed or not there.
            Err(StoreError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        pair.into_iter().nth(1).map(Reply::text).transpose()
    }

    async fn clock_skew(&self) -> Result<Finding, StoreError> {
        let before_ms = our_ms();
        let answer = self.command(Purpose::Control, redis::cmd("TIME")).await?;
        let after_ms = our_ms();
        let [seconds, micros] = answer.array()?;
        let redis_ms = seconds.number()? * 1_000 + micros.number()? / 1_000;
        Ok(clock(redis_ms, (before_ms, after_ms)))
    }
}

fn our_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

fn server(info: &Info) -> Finding {
    let name = info.get("server_name").unwrap_or("redis");
    let version = info.get("valkey_version").or(info.get("redis_version"));
    let found = format!("{name} {}", version.unwrap_or("of an unknown version"));
    Finding::new(Severity::Info, "server", found, "")
}

fn eviction(info: &Info) -> Finding {
    let topic = "eviction";
    match info.get("maxmemory_policy") {
        Some("noeviction") => {
            Finding::new(Severity::Info, topic, "maxmemory-policy is noeviction", "")
        },
        Some(policy) => Finding::new(
            Severity::Refusal,
            topic,
            format!("maxmemory-policy `{policy}` lets Redis delete accepted messages"),
            "set `maxmemory-policy noeviction`",
        ),
        None => Finding::new(
            Severity::Warning,
            topic,
            "the server does not tell its maxmemory-policy: it may delete accepted messages",
            "make sure that it is `noeviction`",
        ),
    }
}

/// `fsync` is none without an append-only file, and holds none where the server does not tell.
fn persistence(fsync: Option<Option<String>>) -> Finding {
    let topic = "persistence";
    match fsync {
        Some(Some(policy)) if policy == "no" => Finding::new(
            Severity::Warning,
            topic,
            "append-only file, appendfsync no: a crash of the machine loses what its kernel had \
             not written, commonly half a minute",
            "set `appendfsync everysec`",
        ),
        Some(Some(policy)) => {
            let found = format!("append-only file, appendfsync {policy}");
            Finding::new(Severity::Info, topic, found, "")
        },
        Some(None) => Finding::new(
            Severity::Warning,
            topic,
            "append-only file; the server does not tell its appendfsync, so how much a crash of \
             the machine loses is unknown",
            "make sure that it is `everysec` or `always`",
        ),
        None => Finding::new(
            Severity::Warning,
            topic,
            "no append-only file: a restart of Redis loses what was accepted since its last \
             snapshot",
            "set `appendonly yes`",
        ),
    }
}

fn durability(can_be_local: bool) -> Finding {
    if can_be_local {
        let found = "streams of durability `local` can be served";
        return Finding::new(Severity::Info, "durability", found, "");
    }
    Finding::new(
        Severity::Info,
        "durability",
        "publishes to streams of durability `local` are refused: the server's appendfsync is not \
         known to be `always`, and it has no WAITAOF or no append-only file that it syncs",
        "where such streams are wanted, set `appendonly yes` with `appendfsync always`, or with \
         `everysec` on Redis 7.2 or Valkey",
    )
}

fn memory(info: &Info) -> Option<Finding> {
    let (limit, used) = (info.number("maxmemory"), info.number("used_memory"));
    (limit > 0 && used > limit / 10 * 9).then(|| {
        Finding::new(
            Severity::Warning,
            "memory",
            format!("{used} of {limit} bytes are used: publishes are refused at the limit"),
            "raise maxmemory, or shorten retention",
        )
    })
}

/// Redis' time against ours, which was read before and after. Within the time of the call nobody
/// can tell.
fn clock(redis_ms: u64, (before_ms, after_ms): (u64, u64)) -> Finding {
    let skew_ms = redis_ms
        .saturating_sub(after_ms)
        .max(before_ms.saturating_sub(redis_ms));
    if skew_ms <= SKEW_MS {
        let found = "the clocks of Redis and of this process agree";
        return Finding::new(Severity::Info, "clock", found, "");
    }
    let how = if redis_ms > after_ms {
        "ahead of"
    } else {
        "behind"
    };
    Finding::new(
        Severity::Warning,
        "clock",
        format!(
            "the clock of Redis is {skew_ms} ms {how} that of this process: leases follow Redis, \
             but delays and times to live that callers give follow theirs"
        ),
        "let both machines set their clocks by NTP",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rows: &[(&str, &str)]) -> Info {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Info(rows.iter().map(pair).collect())
    }

    #[test]
    fn clocks_that_differ_by_more_than_two_seconds_are_told_in_either_direction() {
        for (redis_ms, severity, words) in [
            (11_999, Severity::Info, "agree"),
            (12_101, Severity::Warning, "2001 ms ahead"),
            (8_000, Severity::Info, "agree"),
            (7_999, Severity::Warning, "2001 ms behind"),
        ] {
            let found = clock(redis_ms, (10_000, 10_100));
            assert_eq!(found.severity, severity, "{redis_ms}");
            assert!(found.found.contains(words), "{redis_ms}: {}", found.found);
        }
    }

    #[test]
    fn a_slow_answer_is_no_skew() {
        assert_eq!(clock(15_000, (10_000, 20_000)).severity, Severity::Info);
    }

    #[test]
    fn what_the_server_does_not_tell_is_a_warning_and_no_refusal() {
        assert_eq!(eviction(&info(&[])).severity, Severity::Warning);
        assert_eq!(persistence(Some(None)).severity, Severity::Warning);
        let lru = info(&[("maxmemory_policy", "allkeys-lru")]);
        assert_eq!(eviction(&lru).severity, Severity::Refusal);
    }

    #[test]
    fn every_finding_that_is_not_well_says_what_to_do() {
        let nearly_full = info(&[("maxmemory", "100"), ("used_memory", "95")]);
        let mut findings = vec![
            eviction(&info(&[])),
            persistence(None),
            persistence(Some(None)),
            persistence(Some(Some("no".into()))),
            clock(0, (10_000, 10_000)),
        ];
        findings.extend(memory(&nearly_full));
        assert_eq!(findings.len(), 6);
        for finding in findings {
            assert!(finding.severity > Severity::Info, "{finding:?}");
            assert!(!finding.advice.is_empty(), "{finding:?}");
        }
    }
}
