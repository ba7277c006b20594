//! What a handler gets, and what it says at the end.

use std::{
    fmt,
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hive_protocol::{
    limits::{ADD_TASKS_MAX, RESULT_BYTES_MAX, SETTLE_DELAY_MS_MAX, SUSPEND_STATE_BYTES_MAX},
    outcome::cut_reason,
    time::to_duration,
    wire::{self, outcome::Action},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;

/// One message to work on, and what is known of its delivery.
#[derive(Clone)]
pub struct Job {
    /// The message, as it was published.
    pub message: wire::Message,
    /// 1 for the first try, plus one for each failed attempt before.
    pub attempt: u32,
    /// The token of the delivery. Opaque; for logs.
    pub lease: String,
    /// When the lease would end without the worker's heartbeats; none when the server did not say.
    pub lease_expires_at: Option<SystemTime>,
    /// The agent that works on it.
    pub consumer_id: String,
    /// The group that it came from: the agent's own, or one that it helps out.
    pub group: String,
    /// Fires when the message is no longer the agent's, or when a shutdown ran out of grace: stop
    /// the work and undo nothing. What the handler answers afterwards is not sent.
    pub cancelled: CancellationToken,
    pub(super) entry: String,
    pub(super) progress: mpsc::Sender<String>,
}

impl fmt::Debug for Job {
    // Payloads and tokens are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("message_id", &self.message.message_id)
            .field("message_type", &self.message.message_type)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Reports that the work goes on. A group with a `progress_timeout` takes a job for hung of
    /// which it hears nothing for so long, and gives it to another agent; report a few times as
    /// often. Heartbeats keep the lease without it, and save no such job. A report that finds the
    /// line busy is dropped: the next one will do.
    pub fn progress(&self) {
        drop(self.progress.try_send(self.entry.clone()));
    }
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done.
    Ack {
        /// What came out, at most 1 MiB. Of a task of a workflow its dependants get it; of other
        /// messages it is checked and not kept.
        result: Bytes,
        /// Tasks to add to the run, of a task of a workflow alone; at most 1,000, with the result
        /// at most 1 MiB.
        add_tasks: Vec<wire::TaskSpec>,
    },
    /// A task of a workflow cannot go on without an answer: the agent is free, and the answer comes
    /// with a new attempt.
    Suspend {
        /// The question; cut at 1 KiB.
        prompt: String,
        /// What the next attempt needs to go on, at most 64 KiB.
        state: Bytes,
    },
    /// Failed; counted, and tried again after a backoff or dead-lettered.
    Nack {
        /// Why.
        failure: Failure,
        /// Overrides the group's backoff; at most 24 h.
        delay: Option<Duration>,
    },
    /// Given back, not counted.
    Release {
        /// Not delivered again before this long, at most 24 h; none is at once.
        retry_after: Option<Duration>,
    },
    /// Can never be done: goes to the dead letters now.
    Reject {
        /// Why.
        failure: Failure,
    },
}

impl Outcome {
    /// Done, with this result.
    pub fn ack(result: impl Into<Bytes>) -> Self {
        Self::ack_with(result, Vec::new())
    }

    /// Done, with this result, and these tasks are to be added to the run of the workflow.
    pub fn ack_with(result: impl Into<Bytes>, add_tasks: Vec<wire::TaskSpec>) -> Self {
        Self::Ack {
            result: result.into(),
            add_tasks,
        }
    }

    /// To go on once the question is answered; of a task of a workflow alone.
    pub fn suspend(prompt: impl Into<String>, state: impl Into<Bytes>) -> Self {
        Self::Suspend {
            prompt: prompt.into(),
            state: state.into(),
        }
    }

    /// Done, without a result.
    #[must_use]
    pub const fn done() -> Self {
        Self::Ack {
            result: Bytes::new(),
            add_tasks: Vec::new(),
        }
    }

    /// Failed, to be tried again after the group's backoff.
    pub fn nack(failure: impl Into<Failure>) -> Self {
        Self::Nack {
            failure: failure.into(),
            delay: None,
        }
    }

    /// Given back, to be delivered again at once.
    #[must_use]
    pub const fn release() -> Self {
        Self::Release { retry_after: None }
    }

    /// Can never be done.
    pub fn reject(failure: impl Into<Failure>) -> Self {
        Self::Reject {
            failure: failure.into(),
        }
    }

    /// The category of the failure, e.g. `timeout`; a name. Nothing to an outcome that is none.
    #[must_use]
    pub fn category(self, category: impl Into<String>) -> Self {
        self.change(|failure| failure.category(category))
    }

    /// The type of the error, e.g. `TimeoutError`. Nothing to an outcome that is no failure.
    #[must_use]
    pub fn error_type(self, error_type: impl Into<String>) -> Self {
        self.change(|failure| failure.error_type(error_type))
    }

    /// The stack trace. Nothing to an outcome that is no failure.
    #[must_use]
    pub fn stack(self, stack: impl Into<String>) -> Self {
        self.change(|failure| failure.stack(stack))
    }

    fn change(self, change: impl FnOnce(Failure) -> Failure) -> Self {
        match self {
            Self::Nack { failure, delay } => Self::Nack {
                failure: change(failure),
                delay,
            },
            Self::Reject { failure } => Self::Reject {
                failure: change(failure),
            },
            other @ (Self::Ack { .. } | Self::Suspend { .. } | Self::Release { .. }) => other,
        }
    }

    /// The wire form. What no server takes becomes a failure that says so.
    pub(super) fn into_action(self) -> Action {
        match self {
            Self::Ack { result, add_tasks } => {
                let tasks = add_tasks.len();
                let of_tasks: usize = add_tasks.iter().map(Message::encoded_len).sum();
                let bytes = result.len().saturating_add(of_tasks);
                if bytes > RESULT_BYTES_MAX {
                    let reason = format!("result of `{bytes}` bytes must be at most 1048576 bytes");
                    return nack(Failure::new(reason).category("result_too_large"), None);
                }
                if tasks > ADD_TASKS_MAX {
                    let reason = format!("`{tasks}` tasks to add must be at most 1000");
                    return nack(Failure::new(reason).category("result_too_large"), None);
                }
                Action::Ack(wire::Ack { result, add_tasks })
            },
            Self::Suspend { prompt, state } => {
                let bytes = state.len();
                if bytes > SUSPEND_STATE_BYTES_MAX {
                    let reason = format!("state of `{bytes}` bytes must be at most 65536 bytes");
                    return nack(Failure::new(reason).category("result_too_large"), None);
                }
                let prompt = cut_reason(prompt);
                Action::Suspend(wire::Suspend { prompt, state })
            },
            Self::Nack { failure, delay } => nack(failure, delay),
            Self::Release { retry_after } => Action::Release(wire::Release {
                retry_after: retry_after.map(wire_delay),
            }),
            Self::Reject { failure } => {
                let failure = failure.cut();
                Action::Reject(wire::Reject {
                    reason: failure.reason,
                    category: failure.category,
                    error_type: failure.error_type,
                    stack: failure.stack,
                })
            },
        }
    }
}

/// A counted failure in wire form.
pub(super) fn nack(failure: Failure, delay: Option<Duration>) -> Action {
    let failure = failure.cut();
    Action::Nack(wire::Nack {
        reason: failure.reason,
        category: failure.category,
        delay: delay.map(wire_delay),
        error_type: failure.error_type,
        stack: failure.stack,
    })
}

/// A delay in wire form, at most the 24 h that a server takes.
fn wire_delay(delay: Duration) -> prost_types::Duration {
    let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    to_duration(millis.min(SETTLE_DELAY_MS_MAX))
}

/// Does the work of an agent. Closures `Fn(Job) -> impl Future<Output = Outcome>` do it too.
pub trait Work: Send + Sync + 'static {
    /// Works on one job. A panic counts as a failure of category `handler_exception` and type
    /// `panic`.
    fn work(&self, job: Job) -> impl Future<Output = Outcome> + Send;
}

impl<F, R> Work for F
where
    F: Fn(Job) -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send,
{
    fn work(&self, job: Job) -> impl Future<Output = Outcome> + Send {
        self(job)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hive_protocol::wire::outcome::Action;

    use super::Outcome;

    #[test]
    fn a_result_that_no_server_takes_becomes_a_failure_that_says_so() {
        let Action::Nack(nack) = Outcome::ack(vec![0; (1 << 20) + 1]).into_action() else {
            panic!("a result of more than 1 MiB must not be sent");
        };
        assert_eq!(nack.category, "result_too_large");
    }

    #[test]
    fn a_state_that_no_server_takes_becomes_a_failure_that_says_so() {
        let suspend = Outcome::suspend("which?", vec![0; (64 << 10) + 1]);
        let Action::Nack(nack) = suspend.into_action() else {
            panic!("a state of more than 64 KiB must not be sent");
        };
        assert_eq!(nack.category, "result_too_large");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let Action::Nack(nack) = Outcome::nack("é".repeat(1_000)).into_action() else {
            panic!("a nack stays a nack");
        };
        assert_eq!(nack.reason, "é".repeat(512));
    }

    #[test]
    fn a_failure_says_all_that_is_known_of_it() {
        let outcome = Outcome::nack("no answer")
            .category("timeout")
            .error_type("TimeoutError")
            .stack("at a\nat b");
        let Action::Nack(nack) = outcome.into_action() else {
            panic!("a nack stays a nack");
        };
        assert_eq!((&*nack.reason, &*nack.category), ("no answer", "timeout"));
        assert_eq!(
            (&*nack.error_type, &*nack.stack),
            ("TimeoutError", "at a\nat b")
        );
        let outcome = Outcome::reject("bad")
            .error_type("é".repeat(100))
            .stack("x".repeat(5_000));
        let Action::Reject(reject) = outcome.into_action() else {
            panic!("a reject stays a reject");
        };
        assert_eq!(reject.error_type, "é".repeat(64));
        assert!(reject.stack.len() <= 4_096 && reject.stack.contains("[...]"));
        assert_eq!(Outcome::done().category("timeout"), Outcome::done());
    }

    #[test]
    fn a_delay_is_at_most_a_day() {
        let retry_after = Some(Duration::from_secs(1_000_000));
        let Action::Release(release) = (Outcome::Release { retry_after }).into_action() else {
            panic!("a release stays a release");
        };
        assert_eq!(release.retry_after.unwrap().seconds, 86_400);
    }
}
