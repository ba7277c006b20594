//! CPU time used so far by Redis, the gateway and this process.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// Length of a clock tick in `/proc`: 100 a second on every Linux that is in use.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of each process. `None` where it cannot be seen from here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) redis: Option<Duration>,
    pub(super) gateway: Option<Duration>,
    pub(super) client: Duration,
}

impl Cost {
    /// Reads all counters.
    ///
    /// # Errors
    /// When Redis does not answer, or `/proc` cannot be read.
    pub(super) async fn now(redis_url: Option<&str>, gateway: Option<u32>) -> anyhow::Result<Self> {
        let redis = match redis_url {
            Some(url) => Some(hive_store::ceiling::redis_cpu(url).await?),
            None => None,
        };
        let gateway = gateway.map(|pid| cpu_of(&pid.to_string())).transpose()?;
        Ok(Self {
            redis,
            gateway,
            client: cpu_of("self")?,
        })
    }

    /// What was used since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let since = |now: Option<Duration>, before: Option<Duration>| {
            now.zip(before)
                .map(|(now, before)| now.saturating_sub(before))
        };
        Self {
            redis: since(self.redis, before.redis),
            gateway: since(self.gateway, before.gateway),
            client: self.client.saturating_sub(before.client),
        }
    }
}

/// CPU time of a process, from `/proc/<pid>/stat`.
fn cpu_of(pid: &str) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
    ticks(&stat)
        .map(|ticks| TICK * ticks)
        .with_context(|| format!("`{path}` has another form"))
}

/// User and system ticks: fields 14 and 15, counted after the name, which may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user = fields.next()?.parse::<u32>().ok()?;
    let system = fields.next()?.parse::<u32>().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(42));
    }
}
