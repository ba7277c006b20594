//! `hive work`: makes any program an agent.
//!
//! For each message a shell command runs: payload on stdin, facts in `HIVE_*` variables, stdout is
//! the result, the exit code the outcome. The worker keeps the lease alive meanwhile, joins another
//! gateway when one goes away, and gives back what it has not begun when it is told to stop.
//!
//! A program never outlives its worker, also when that is killed with -9: a supervisor stands
//! between (see [`super::supervise`]), started from a thread that lives as long as this process
//! (see [`crate::children`]). So a task that is delivered again never runs beside its old copy.

use std::{ffi::OsString, fs, process, sync::Arc, time::Duration};

use clap::{ArgGroup, Args};
use hive_client::{Client, Ended, Event, Job, Outcome, WorkError, Worker, wire};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    children::Spawner,
    connection::{Common, exit_for, refused, told},
    exit::{Exit, Failure},
    message::DEFAULT_PRIORITY,
    output::note,
    values::duration,
};

mod program;
mod scratch;

use program::{Program, Verdict};
use scratch::Scratch;

/// Header that carries the trace of a message.
const TRACEPARENT: &str = "traceparent";

/// Variables with the defaults of `--id` and `--grace`, for who starts workers by a command of
/// somebody else, as `hive dev --scale` does. The programs of a worker do not inherit them: their
/// own workers would take its id away from it.
pub(super) const ID_VARIABLE: &str = "HIVE_WORK_ID";
pub(super) const GRACE_VARIABLE: &str = "HIVE_WORK_GRACE";

/// Variables that a pod's specification sets to its own namespace and name.
const POD_NAMESPACE: &str = "HIVE_POD_NAMESPACE";
const POD_NAME: &str = "HIVE_POD_NAME";

/// How long a worker that was scaled down stays idle in its pod before it ends all the same.
///
/// A pod that is too many is deleted within seconds. One that is still there after that is wanted
/// again: the wish rose meanwhile, the Deployment keeps its replica, and nobody would work in it.
const POD_IDLE: Duration = Duration::from_secs(120);

/// Longest part of a host name in an id; names hold 128 characters.
const HOST_CHARACTERS_MAX: usize = 64;

/// What the variables and exit codes mean, for `--help`.
pub(crate) const MANUAL: &str = "\
The command is run by `sh -c`, once per message:
  stdin      the payload
  stdout     the result, up to 1 MiB
  exit 0     done (ack)
  exit 75    not now: given back, not counted, and offered again after --release-for
  exit 65    never: goes to the dead letters
  exit 79    asks for input, of a task of a workflow: stdout is the question, and the answer comes
             with a new run of the command
  else       failed: counted, tried again after a backoff; the tail of stderr is the reason,
             and up to 4 KiB of it the stack that `hive dlq get` shows
  HIVE_MESSAGE_ID HIVE_GROUP HIVE_ATTEMPT HIVE_MESSAGE_TYPE HIVE_FROM_AGENT HIVE_PRIORITY
  HIVE_CORRELATION_ID HIVE_WORKFLOW_ID HIVE_RUN_ID HIVE_TASK_ID HIVE_CONSUMER_ID
  HIVE_TRACEPARENT HIVE_URL HIVE_NAMESPACE
  HIVE_INPUTS  path of a JSON file: what the tasks gave that this one depends on, by their ids
  HIVE_ANSWER  path of a JSON file: question and answer, where the command asked for input
On a timeout, or when the message is not this agent's any more, the program and all it started get
SIGTERM, and SIGKILL 10 s later. It dies with this worker, however that ends.

When fewer agents are wanted the worker finishes what runs, gives the rest back, and ends with exit
code 0. In a pod of Kubernetes (HIVE_POD_NAMESPACE and HIVE_POD_NAME are set) it stays, idle, until
the pod is deleted, and ends after two minutes where it is not. A command has no way to report
progress: in a group with a progress timeout each run must end within it.

SIGINT or SIGTERM to the worker: nothing new is begun, what runs may end within --grace, the rest is
given back. A second signal ends it at once.";

/// Which work to take, and what does it.
#[derive(Args, Debug)]
#[command(after_long_help = MANUAL)]
#[command(group = ArgGroup::new("which").required(true).args(["group", "agent_type"]))]
pub(crate) struct WorkArgs {
    /// The group to work for; one that does not exist yet is waited for.
    #[arg(long, short)]
    group: Option<String>,
    /// What this agent is: the coordinator says which group it joins, in place of --group.
    #[arg(long, value_name = "TYPE")]
    agent_type: Option<String>,
    /// The command to run for each message.
    #[arg(long, short, value_name = "COMMAND")]
    exec: OsString,
    /// How many messages to work on at once.
    #[arg(long, short, default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// What this agent can do, with commas between.
    #[arg(long, value_delimiter = ',')]
    capabilities: Vec<String>,
    /// How long the command may run for one message.
    #[arg(long, value_parser = duration, default_value = "30m")]
    timeout: Duration,
    /// Id of the agent in the group [default: host, process id and four random hex digits].
    #[arg(long, env = ID_VARIABLE)]
    id: Option<String>,
    /// How long a message is left alone that the command gave back with exit code 75.
    #[arg(long, value_parser = duration, default_value = "5s")]
    release_for: Duration,
    /// How long running commands may take to end after the worker was told to stop.
    #[arg(long, env = GRACE_VARIABLE, value_parser = duration, default_value = "30s")]
    grace: Duration,
    /// Help other groups out while this one has no work: run the command for their messages too.
    #[arg(long)]
    accept_offers: bool,
    /// Keep the command's stderr off this one.
    #[arg(long, short)]
    quiet: bool,
}

/// What every run of the program shares.
#[derive(Debug)]
struct Agent {
    spawner: Spawner,
    program: Program,
    release_for: Duration,
    url: String,
    namespace: String,
}

/// Works until a signal comes or the membership cannot be kept.
///
/// # Errors
/// When a gateway refuses the membership for good.
pub(crate) async fn run(args: WorkArgs, common: &Common) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let client = common.client()?;
    let group = tokio::select! {
        group = group_of(&args, &client) => group?,
        _ = interrupt.recv() => return Ok(Exit::Interrupted),
        _ = terminate.recv() => return Ok(Exit::Interrupted),
    };
    let id = args.id.clone().unwrap_or_else(default_id);
    let timeout = Some(args.timeout).filter(|limit| !limit.is_zero());
    let agent = Arc::new(Agent {
        spawner: Spawner::start()?,
        program: Program {
            line: args.exec.clone(),
            timeout,
            is_quiet: args.quiet,
        },
        release_for: args.release_for,
        url: common.urls().join(","),
        namespace: common.namespace.clone(),
    });
    let shutdown = CancellationToken::new();
    let handler = move |job: Job| {
        let agent = Arc::clone(&agent);
        async move { agent.work(job).await }
    };
    let pod = pod_of(
        std::env::var(POD_NAMESPACE).ok(),
        std::env::var(POD_NAME).ok(),
    );
    let worker = Worker::builder(client, &group, handler)
        .consumer_id(&id)
        .capabilities(args.capabilities.clone())
        .concurrency(args.concurrency)
        .grace(args.grace)
        .wait_for_group(true)
        .accept_offers(args.accept_offers)
        .pod(pod.clone().unwrap_or_default())
        .shutdown(shutdown.clone())
        .on_event(|event| tell(&event))
        .build();
    let mut work = std::pin::pin!(worker.run());
    tokio::select! {
        ended = &mut work => {
            let is_drained = ended.as_ref().is_ok_and(|ended| ended.drained);
            let exit = finished(ended)?;
            // A Deployment starts a container that ends again, in the same pod, as a new agent that
            // takes work. So this one stays until its pod is deleted, which is what follows; where
            // it is not, a new agent in it is just what is wanted.
            if is_drained && let Some(pod) = pod {
                note(&format!("idle until the pod {pod} is deleted, for up to {POD_IDLE:?}"));
                tokio::select! {
                    _ = interrupt.recv() => {},
                    _ = terminate.recv() => {},
                    () = sleep(POD_IDLE) => note("the pod is still wanted: a new agent may start"),
                }
            }
            return Ok(exit);
        },
        _ = interrupt.recv() => shutdown.cancel(),
        _ = terminate.recv() => shutdown.cancel(),
    }
    tokio::select! {
        ended = &mut work => finished(ended),
        // Dropping the work stops the programs; their messages come back by their leases.
        _ = interrupt.recv() => Ok(Exit::Interrupted),
        _ = terminate.recv() => Ok(Exit::Interrupted),
    }
}

/// The group to join: the one that is named, or the one that the coordinator names.
async fn group_of(args: &WorkArgs, client: &Client) -> anyhow::Result<String> {
    if let Some(group) = &args.group {
        return Ok(group.clone());
    }
    let request = wire::PlaceAgentRequest {
        agent_type: args.agent_type.clone().unwrap_or_default(),
        capabilities: args.capabilities.clone(),
        dry_run: false,
    };
    let placed = client.place_agent(request).await.map_err(refused)?;
    let made = if placed.created { ", made for it" } else { "" };
    note(&format!(
        "joins the group `{}`{made}: {}",
        placed.group, placed.reasoning
    ));
    Ok(placed.group)
}

impl Agent {
    /// One message: runs the program and turns its end into an outcome.
    async fn work(&self, job: Job) -> Outcome {
        let scratch = match Scratch::of(&job.message) {
            Ok(scratch) => scratch,
            Err(error) => {
                let reason = format!("the inputs of the task cannot be written: {error}");
                return Outcome::nack(reason);
            },
        };
        let facts = self.facts(&job, scratch.as_ref());
        let payload = job.message.payload.clone();
        let verdict = self
            .program
            .run(&self.spawner, payload, &facts, &job.cancelled)
            .await;
        let id = &job.message.message_id;
        match verdict {
            Verdict::Done(result) => Outcome::ack(result),
            Verdict::Asks { question } => {
                note(&format!("{id}: asks: {question}"));
                Outcome::suspend(question, "")
            },
            Verdict::Later => Outcome::Release {
                retry_after: Some(self.release_for),
            },
            Verdict::Refused { reason, stack } => {
                note(&format!("{id}: refused: {reason}"));
                Outcome::reject(reason).stack(stack)
            },
            Verdict::Failed {
                reason,
                category,
                stack,
            } => {
                note(&format!("{id}: attempt {} failed: {reason}", job.attempt));
                Outcome::nack(reason).category(category).stack(stack)
            },
            // The message is somebody else's by now: what is said here is not sent.
            Verdict::Stopped => Outcome::release(),
        }
    }

    /// What the program is told about its message. All are set, so that none is inherited from an
    /// agent that this one was started by.
    fn facts(&self, job: &Job, scratch: Option<&Scratch>) -> Vec<(&'static str, String)> {
        let message = &job.message;
        let traceparent = message
            .headers
            .get(TRACEPARENT)
            .cloned()
            .unwrap_or_default();
        vec![
            ("HIVE_MESSAGE_ID", message.message_id.clone()),
            ("HIVE_GROUP", job.group.clone()),
            ("HIVE_ATTEMPT", job.attempt.to_string()),
            ("HIVE_MESSAGE_TYPE", message.message_type.clone()),
            ("HIVE_FROM_AGENT", message.from_agent.clone()),
            (
                "HIVE_PRIORITY",
                message.priority.unwrap_or(DEFAULT_PRIORITY).to_string(),
            ),
            ("HIVE_CORRELATION_ID", message.correlation_id.clone()),
            ("HIVE_WORKFLOW_ID", message.workflow_id.clone()),
            ("HIVE_RUN_ID", message.run_id.clone()),
            ("HIVE_TASK_ID", message.task_id.clone()),
            (
                "HIVE_INPUTS",
                scratch.map(Scratch::inputs).unwrap_or_default(),
            ),
            (
                "HIVE_ANSWER",
                scratch.map(Scratch::answer).unwrap_or_default(),
            ),
            ("HIVE_CONSUMER_ID", job.consumer_id.clone()),
            ("HIVE_TRACEPARENT", traceparent),
            ("HIVE_URL", self.url.clone()),
            ("HIVE_NAMESPACE", self.namespace.clone()),
        ]
    }
}

/// What a person at the terminal wants to know of a membership.
fn tell(event: &Event) {
    match event {
        Event::Joined {
            gateway,
            attach,
            lost,
        } => {
            let lost = if *lost > 0 {
                format!(", {lost} deliveries lost")
            } else {
                String::new()
            };
            note(&format!(
                "joined over {gateway} (connection {attach}{lost})"
            ));
        },
        Event::LostConnection { gateway, fault } => {
            note(&format!("lost {gateway}: {}", told(fault)));
        },
        Event::WaitingForGroup => note("the group does not exist yet; waiting for it"),
        Event::Draining { gateway } => note(&format!("{gateway} goes away")),
        Event::Cancelled { leases, reason } => {
            note(&format!(
                "{} deliveries were taken away: {reason}",
                leases.len()
            ));
        },
        Event::SettleRefused { error, .. } => note(&format!("an outcome was not taken: {error}")),
        Event::HandlerPanicked { message_id, reason } => note(&format!("{message_id}: {reason}")),
        Event::ShuttingDown { running } => note(&format!("stopping; {running} still running")),
        Event::ScaledDown { running } => {
            note(&format!("fewer agents are wanted; {running} still running"));
        },
        Event::Offered { group, reason } => note(&format!("offered work of {group}: {reason}")),
        Event::Helping { group } => note(&format!("helping {group} out")),
        Event::Returned { group, handled } => {
            note(&format!("back from {group}, {handled} handled there"));
        },
        Event::Revoked { .. } => {},
    }
}

/// The pod that this runs in, where its specification says both parts of its name.
fn pod_of(namespace: Option<String>, name: Option<String>) -> Option<String> {
    let (namespace, name) = (namespace?, name?);
    (!namespace.is_empty() && !name.is_empty()).then(|| format!("{namespace}/{name}"))
}

/// The exit code of a membership that ended.
fn finished(ended: Result<Ended, WorkError>) -> anyhow::Result<Exit> {
    match ended {
        Ok(Ended {
            unfinished: 0,
            drained,
            handled,
        }) => {
            if drained {
                note(&format!(
                    "scaled down after {handled} outcomes; not to be started again"
                ));
            }
            Ok(Exit::Done)
        },
        Ok(Ended { unfinished, .. }) => {
            note(&format!(
                "{unfinished} commands did not end in time; their messages went back"
            ));
            Ok(Exit::Interrupted)
        },
        Err(error) => {
            let (WorkError::Fenced { fault, .. }
            | WorkError::NoGroup { fault, .. }
            | WorkError::Refused { fault, .. }) = &error;
            Err(Failure::new(exit_for(fault.kind), error.to_string()).into())
        },
    }
}

/// An id that no other agent has: host, process id, four random hex digits.
fn default_id() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    named(&host, process::id(), rand::random())
}

/// The id, in the characters of a name.
fn named(host: &str, pid: u32, random: u16) -> String {
    let is_kept =
        |character: &char| character.is_ascii_alphanumeric() || "_.-".contains(*character);
    let host = host
        .trim()
        .chars()
        .filter(is_kept)
        .take(HOST_CHARACTERS_MAX)
        .collect::<String>();
    let host = host.trim_start_matches(['_', '.', '-']);
    let host = if host.is_empty() { "agent" } else { host };
    format!("{host}-{pid}-{random:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_where_both_parts_of_its_name_are() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(pod_of(some("prod"), some("agent-7")), some("prod/agent-7"));
        assert_eq!(pod_of(some("prod"), None), None);
        assert_eq!(pod_of(some(""), some("agent-7")), None);
    }

    #[test]
    fn an_id_is_a_name_whatever_the_host_is_called() {
        assert_eq!(named("build-7\n", 12, 0xab), "build-7-12-00ab");
        assert_eq!(named("-strange host/é", 1, 0), "strangehost-1-0000");
        assert_eq!(named("", 1, 0xffff), "agent-1-ffff");
    }
}
