//! Real daemons as processes, found beside the test executable.
//!
//! A daemon is configured by environment alone and listens on free loopback ports; which ones, it
//! says in its `ready` event, a line of JSON with the fields `listen` and `admin`.

use std::{collections::BTreeMap, net::SocketAddr, process::ExitStatus, time::Duration};

use serde_json::Value;

use crate::program::Program;

/// How long a daemon may take to be ready, in an unoptimised build on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A running daemon, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    environment: BTreeMap<String, String>,
    addresses: Addresses,
    program: Program,
}

/// Where a ready daemon listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Daemon {
    /// Starts the binary `name` on this Redis and waits until it is ready. `environment` overrides
    /// what the test kit sets: free loopback ports and the log filter `info`.
    ///
    /// # Errors
    /// When the binary is not built, the daemon ends, or it is not ready within 20 s; with its last
    /// lines.
    pub async fn start(
        name: &str,
        redis_url: &str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let defaults = [
            ("HIVE_REDIS_URL", redis_url),
            ("HIVE_SERVER_LISTEN", "127.0.0.1:0"),
            ("HIVE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("HIVE_LOG_FILTER", "info"),
        ];
        let environment: BTreeMap<String, String> = defaults
            .iter()
            .chain(environment)
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let (program, addresses) = start_ready(name, &environment).await?;
        Ok(Self {
            name: name.to_owned(),
            environment,
            addresses,
            program,
        })
    }

    /// Starts a `hive-gateway`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn gateway(redis_url: &str) -> anyhow::Result<Self> {
        Self::start("hive-gateway", redis_url, &[]).await
    }

    /// Starts a `hive-coordinator`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn coordinator(redis_url: &str) -> anyhow::Result<Self> {
        Self::start("hive-coordinator", redis_url, &[]).await
    }

    /// Starts a `hive-router`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn router(redis_url: &str) -> anyhow::Result<Self> {
        Self::start("hive-router", redis_url, &[]).await
    }

    /// Starts a `hive-dlq`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn dlq(redis_url: &str) -> anyhow::Result<Self> {
        Self::start("hive-dlq", redis_url, &[]).await
    }

    /// Address of gRPC, and at the gateway of REST.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.addresses.listen
    }

    /// Address of the admin port.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// URL of gRPC, and at the gateway of REST.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.listen)
    }

    /// URL of the admin port.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.addresses.admin)
    }

    /// The process, for its output and its id.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.program.log_tail()
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.program.kill9()
    }

    /// Asks it to drain and end.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sigterm(&mut self) -> anyhow::Result<()> {
        self.program.sigterm()
    }

    /// Stops it: its connections stay open and nobody answers.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sigstop(&mut self) -> anyhow::Result<()> {
        self.program.sigstop()
    }

    /// Lets a stopped daemon go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sigcont(&mut self) -> anyhow::Result<()> {
        self.program.sigcont()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When `deadline` passes first; with its last lines.
    pub async fn wait_exit(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.program.wait_exit(deadline).await
    }

    /// Waits for its end with this exit code: 0 drained, 3 grace ended with work unfinished.
    ///
    /// # Errors
    /// When `deadline` passes first or the code is another; with its last lines.
    pub async fn wait_exit_code(&mut self, code: i32, deadline: Duration) -> anyhow::Result<()> {
        self.program.wait_exit_code(code, deadline).await
    }

    /// Kills it if it still runs and starts it again on the same addresses, as a supervisor would.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.program.kill9()?;
        let Addresses { listen, admin } = self.addresses;
        self.environment
            .insert("HIVE_SERVER_LISTEN".to_owned(), listen.to_string());
        self.environment
            .insert("HIVE_ADMIN_LISTEN".to_owned(), admin.to_string());
        (self.program, self.addresses) = start_ready(&self.name, &self.environment).await?;
        Ok(())
    }
}

async fn start_ready(
    name: &str,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<(Program, Addresses)> {
    let environment = environment
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let mut program = Program::start(name, &[], environment)?;
    let addresses = program
        .wait_line(READY_DEADLINE, "its `ready` event", ready_addresses)
        .await?;
    Ok((program, addresses))
}

/// Reads the addresses of a `ready` event, whether the log nests the fields of events or not.
fn ready_addresses(line: &str) -> Option<Addresses> {
    let event: Value = serde_json::from_str(line).ok()?;
    let fields = event.get("fields").unwrap_or(&event);
    if fields.get("message")?.as_str()? != "ready" {
        return None;
    }
    let address = |key| fields.get(key)?.as_str()?.parse().ok();
    Some(Addresses {
        listen: address("listen")?,
        admin: address("admin")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_event_gives_both_addresses() {
        let nested = r#"{"level":"INFO","fields":{"message":"ready","listen":"127.0.0.1:8000",
            "admin":"127.0.0.1:9000"}}"#;
        let flat = r#"{"message":"ready","listen":"127.0.0.1:8000","admin":"127.0.0.1:9000"}"#;
        for line in [nested, flat] {
            let addresses = ready_addresses(line).unwrap();
            assert_eq!(addresses.listen.port(), 8000);
            assert_eq!(addresses.admin.port(), 9000);
        }
    }

    #[test]
    fn any_other_line_is_no_ready_event() {
        for line in [
            "ready",
            "{}",
            r#"{"message":"starting"}"#,
            r#"{"message":"ready"}"#,
        ] {
            assert_eq!(ready_addresses(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_built_names_the_way_out() {
        let error = Daemon::start("hive-nothing", "redis://127.0.0.1:1", &[])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("run scripts/test"));
    }
}
