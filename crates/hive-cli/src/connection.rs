//! How client commands reach the gateways: the flags, the client, what a refusal means.

use std::time::Duration;

use clap::Args;
use hive_client::{CallError, Client, Endpoints, Fault, FaultKind, Reason};

use crate::{
    exit::{Exit, Failure},
    output::{Format, Output},
};

/// Where a gateway of `hive dev` listens.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8000";

/// How long a call may take. Gateways wait for Redis up to 3 s; a person waits no longer than this.
const CALL_WITHIN: Duration = Duration::from_secs(6);

/// Flags that every client command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Gateways to talk to, with commas between [default: http://127.0.0.1:8000].
    #[arg(
        long,
        global = true,
        env = "HIVE_URL",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub(crate) url: Vec<String>,
    /// Namespace in which all names live.
    #[arg(long, global = true, env = "HIVE_NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// How results are printed.
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
}

impl Common {
    /// The gateways, in order of preference.
    pub(crate) fn urls(&self) -> Vec<String> {
        if self.url.is_empty() {
            vec![DEFAULT_URL.to_owned()]
        } else {
            self.url.clone()
        }
    }

    /// Where and how results are printed.
    pub(crate) fn out(&self) -> Output {
        Output::new(self.output)
    }

    /// A client of the gateways. Nothing is connected yet.
    ///
    /// # Errors
    /// When a URL or the namespace cannot be.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_of(self.urls())
    }

    /// A client of these gateways.
    ///
    /// # Errors
    /// When a URL or the namespace cannot be.
    pub(crate) fn client_of(&self, urls: Vec<String>) -> Result<Client, Failure> {
        let wrong = |error: &dyn std::error::Error| Failure::new(Exit::Usage, error.to_string());
        let endpoints = Endpoints::new(urls).map_err(|error| wrong(&error))?;
        let builder = Client::builder(endpoints).namespace(&self.namespace);
        builder
            .call_deadline(CALL_WITHIN)
            .build()
            .map_err(|error| wrong(&error))
    }
}

/// What a failed call means for the exit code, and all that the server said about it.
#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
pub(crate) fn refused(error: CallError) -> Failure {
    match &error {
        CallError::Refused(fault) => Failure::new(exit_for(fault.kind), told(fault)),
        CallError::Unreachable { last, .. } => {
            let advice = if last.reason == Reason::NoRouter {
                "the gateway is there and no router is: start one with `hive serve router`"
            } else if last.reason == Reason::NoDlq {
                "the gateway is there and no dead-letter worker is: start one with `hive serve dlq`"
            } else if last.reason == Reason::NoCoordinator {
                "the gateway is there and no coordinator is: `hive serve coordinator` starts one"
            } else {
                "start a gateway with `hive dev`, or name one with --url or HIVE_URL"
            };
            Failure::new(Exit::Unavailable, format!("{error}\n  {advice}"))
        },
    }
}

/// A fault for a person: one line, and one more for each field at fault.
pub(crate) fn told(fault: &Fault) -> String {
    if fault.violations.len() < 2 {
        return fault.to_string();
    }
    let fields = fault
        .violations
        .iter()
        .map(|violation| format!("\n  {violation}"));
    format!(
        "{}: the request breaks rules:{}",
        fault.reason,
        fields.collect::<String>()
    )
}

/// The exit code for a kind of fault.
pub(crate) fn exit_for(kind: FaultKind) -> Exit {
    match kind {
        FaultKind::Unavailable | FaultKind::Timeout => Exit::Unavailable,
        FaultKind::Corrupt | FaultKind::Bug => Exit::Failed,
        FaultKind::Invalid
        | FaultKind::Unauthenticated
        | FaultKind::Forbidden
        | FaultKind::NotFound
        | FaultKind::Exists
        | FaultKind::WrongState
        | FaultKind::Fenced
        | FaultKind::Saturated
        | FaultKind::Unsupported => Exit::Refused,
    }
}
