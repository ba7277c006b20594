//! Reads what an agent says became of a delivery.

use bytes::Bytes;
use hive_domain::{name, violation::Violations};
use prost::Message;

use crate::{
    limits::{
        ADD_TASKS_MAX, ERROR_TYPE_BYTES_MAX, LEASE_BYTES_MAX, REASON_BYTES_MAX, RESULT_BYTES_MAX,
        SETTLE_DELAY_MS_MAX, STACK_BYTES_MAX, SUSPEND_STATE_BYTES_MAX,
    },
    message::at_most,
    time, wire,
};

/// A checked outcome of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The token of the delivery, as the agent sent it.
    pub lease: String,
    /// What became of it.
    pub action: Action,
}

/// What became of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Done.
    Ack {
        /// What came out, at most 1 MiB; empty for nothing.
        result: Bytes,
        /// Tasks to add to the run, at most 1,000; with the result at most 1 MiB. Of a task of a
        /// workflow alone: who knows the delivery checks that.
        add_tasks: Vec<wire::TaskSpec>,
    },
    /// Goes on once a question is answered. Of a task of a workflow alone: who knows the delivery
    /// checks that.
    Suspend {
        /// The question, at most 1 KiB.
        prompt: String,
        /// What the next attempt needs, at most 64 KiB.
        state: Bytes,
    },
    /// Failed; counted.
    Nack {
        /// What went wrong.
        failure: Failure,
        /// Instead of the backoff, at most 24 h.
        delay_ms: Option<u64>,
    },
    /// Given back, not counted.
    Release {
        /// Not delivered again before this long, at most 24 h; 0 for at once.
        retry_after_ms: u64,
    },
    /// Can never be done.
    Reject {
        /// What went wrong.
        failure: Failure,
    },
    /// Not settled: its lease starts anew.
    Extend,
}

/// What an agent says of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// For people, at most 1 KiB.
    pub reason: String,
    /// Failure category, a name; empty where it is to be found out.
    pub category: String,
    /// Type of the error, at most 128 bytes, or empty.
    pub error_type: String,
    /// Stack trace, at most 4 KiB, or empty.
    pub stack: String,
}

/// Checks one outcome and cuts its reason.
///
/// # Errors
/// All violations, their fields named as in the wire message (`nack.delay`).
pub fn parse(outcome: wire::Outcome) -> Result<Outcome, Violations> {
    let action = parse_action(&outcome.lease, outcome.action)?;
    Ok(Outcome {
        lease: outcome.lease,
        action,
    })
}

/// Checks the action of an outcome, and the size of the token it came with.
///
/// # Errors
/// As `parse`.
pub fn parse_action(
    lease: &str,
    action: Option<wire::outcome::Action>,
) -> Result<Action, Violations> {
    let mut faults = Violations::new();
    if lease.is_empty() {
        faults.push("lease", "must not be empty");
    }
    faults.take(at_most("lease", lease.len(), LEASE_BYTES_MAX));
    let action = match action {
        Some(action) => checked(action, &mut faults),
        None => {
            faults.push(
                "action",
                "one of ack, nack, release, reject, extend, suspend must be set",
            );
            None
        },
    };
    match action {
        Some(action) if faults.is_empty() => Ok(action),
        _ => Err(faults),
    }
}

/// The action, or none when a value that it needs is missing from it; then `faults` says so.
fn checked(action: wire::outcome::Action, faults: &mut Violations) -> Option<Action> {
    use wire::outcome::Action as Wire;
    match action {
        Wire::Ack(ack) => {
            faults.take(at_most("ack.result", ack.result.len(), RESULT_BYTES_MAX));
            if ack.add_tasks.len() > ADD_TASKS_MAX {
                let count = ack.add_tasks.len();
                let rule = format!("has `{count}` tasks and must have at most {ADD_TASKS_MAX}");
                faults.push("ack.add_tasks", rule);
            }
            let bytes: usize = ack.add_tasks.iter().map(Message::encoded_len).sum();
            if bytes > 0 {
                let bytes = bytes.saturating_add(ack.result.len());
                faults.take(at_most("ack.add_tasks", bytes, RESULT_BYTES_MAX));
            }
            Some(Action::Ack {
                result: ack.result,
                add_tasks: ack.add_tasks,
            })
        },
        Wire::Nack(nack) => {
            faults.take(name::check_optional("nack.category", &nack.category));
            let delay_ms = faults.take(time::optional_duration_ms(
                "nack.delay",
                nack.delay.as_ref(),
                SETTLE_DELAY_MS_MAX,
            ))?;
            let failure = Failure {
                reason: cut_reason(nack.reason),
                category: nack.category,
                error_type: cut_error_type(nack.error_type),
                stack: cut_stack(&nack.stack),
            };
            Some(Action::Nack { failure, delay_ms })
        },
        Wire::Release(release) => {
            let retry_after_ms = faults.take(time::optional_duration_ms(
                "release.retry_after",
                release.retry_after.as_ref(),
                SETTLE_DELAY_MS_MAX,
            ))?;
            Some(Action::Release {
                retry_after_ms: retry_after_ms.unwrap_or(0),
            })
        },
        Wire::Reject(reject) => {
            faults.take(name::check_optional("reject.category", &reject.category));
            Some(Action::Reject {
                failure: Failure {
                    reason: cut_reason(reject.reason),
                    category: reject.category,
                    error_type: cut_error_type(reject.error_type),
                    stack: cut_stack(&reject.stack),
                },
            })
        },
        Wire::Extend(wire::Extend {}) => Some(Action::Extend),
        Wire::Suspend(suspend) => {
            let size = suspend.state.len();
            faults.take(at_most("suspend.state", size, SUSPEND_STATE_BYTES_MAX));
            Some(Action::Suspend {
                prompt: cut_reason(suspend.prompt),
                state: suspend.state,
            })
        },
    }
}

/// The first 1 KiB of a reason, cut between characters.
#[must_use]
pub fn cut_reason(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

/// The first 128 bytes of the type of an error, cut between characters, in one line.
#[must_use]
pub fn cut_error_type(mut error_type: String) -> String {
    error_type.truncate(error_type.floor_char_boundary(ERROR_TYPE_BYTES_MAX));
    error_type.replace(['\n', '\r'], " ")
}

/// A stack trace of at most 4 KiB: of a longer one the middle is left out, for it begins with what
/// was called and ends with what went wrong, or the other way round.
#[must_use]
pub fn cut_stack(stack: &str) -> String {
    const GAP: &str = "\n[...]\n";
    if stack.len() <= STACK_BYTES_MAX {
        return stack.to_owned();
    }
    let half = STACK_BYTES_MAX.saturating_sub(GAP.len()) / 2;
    let (head, _) = stack.split_at(stack.floor_char_boundary(half));
    let (_, tail) = stack.split_at(stack.ceil_char_boundary(stack.len().saturating_sub(half)));
    format!("{head}{GAP}{tail}")
}

#[cfg(test)]
mod tests {
    use prost_types::Duration;

    use super::{Action, Failure, cut_reason, cut_stack, parse};
    use crate::wire::{self, outcome::Action as Wire};

    fn outcome(action: Option<Wire>) -> wire::Outcome {
        wire::Outcome {
            lease: "a".to_owned(),
            action,
        }
    }

    fn fields(outcome: wire::Outcome) -> Vec<String> {
        parse(outcome)
            .unwrap_err()
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    #[test]
    fn an_outcome_without_an_action_or_a_lease_is_refused() {
        let empty = wire::Outcome {
            lease: String::new(),
            action: None,
        };
        assert_eq!(fields(empty), ["lease", "action"]);
    }

    #[test]
    fn every_action_is_read() {
        let read = |action| parse(outcome(Some(action))).unwrap().action;
        assert_eq!(
            read(Wire::Ack(wire::Ack {
                result: "done".into(),
                add_tasks: Vec::new(),
            })),
            Action::Ack {
                result: "done".into(),
                add_tasks: Vec::new(),
            }
        );
        assert_eq!(
            read(Wire::Suspend(wire::Suspend {
                prompt: "which?".repeat(200),
                state: "state".into(),
            })),
            Action::Suspend {
                prompt: cut_reason("which?".repeat(200)),
                state: "state".into(),
            }
        );
        assert_eq!(
            read(Wire::Nack(wire::Nack {
                reason: "no disk".to_owned(),
                category: "timeout".to_owned(),
                delay: Some(Duration {
                    seconds: 2,
                    nanos: 0
                }),
                error_type: "OSError".to_owned(),
                stack: "at main".to_owned(),
            })),
            Action::Nack {
                failure: Failure {
                    reason: "no disk".to_owned(),
                    category: "timeout".to_owned(),
                    error_type: "OSError".to_owned(),
                    stack: "at main".to_owned(),
                },
                delay_ms: Some(2_000),
            }
        );
        assert_eq!(
            read(Wire::Release(wire::Release { retry_after: None })),
            Action::Release { retry_after_ms: 0 }
        );
        assert_eq!(
            read(Wire::Reject(wire::Reject::default())),
            Action::Reject {
                failure: Failure::default()
            }
        );
        assert_eq!(read(Wire::Extend(wire::Extend {})), Action::Extend);
    }

    #[test]
    fn a_long_stack_keeps_its_ends() {
        let stack = format!("{}{}{}", "é".repeat(3_000), "middle", "ü".repeat(3_000));
        let cut = cut_stack(&stack);
        assert!(cut.len() <= 4_096, "{}", cut.len());
        assert!(cut.starts_with('é') && cut.ends_with('ü') && !cut.contains("middle"));
        assert_eq!(cut_stack("short"), "short");
    }

    #[test]
    fn all_faults_of_a_nack_come_at_once() {
        let nack = wire::Nack {
            category: "no spaces".to_owned(),
            delay: Some(Duration {
                seconds: 86_401,
                nanos: 0,
            }),
            ..wire::Nack::default()
        };
        assert_eq!(
            fields(outcome(Some(Wire::Nack(nack)))),
            ["nack.category", "nack.delay"]
        );
    }

    #[test]
    fn a_negative_release_is_refused() {
        let release = wire::Release {
            retry_after: Some(Duration {
                seconds: -1,
                nanos: 0,
            }),
        };
        assert_eq!(
            fields(outcome(Some(Wire::Release(release)))),
            ["release.retry_after"]
        );
    }

    #[test]
    fn a_result_over_its_limit_is_refused() {
        let ack = wire::Ack {
            result: vec![0; (1 << 20) + 1].into(),
            add_tasks: Vec::new(),
        };
        assert_eq!(fields(outcome(Some(Wire::Ack(ack)))), ["ack.result"]);
    }

    #[test]
    fn tasks_of_an_ack_have_limits_of_their_own_and_one_with_the_result() {
        let add = |count: usize, result: usize, payload: usize| wire::Ack {
            result: vec![0; result].into(),
            add_tasks: vec![
                wire::TaskSpec {
                    payload: vec![0; payload].into(),
                    ..wire::TaskSpec::default()
                };
                count
            ],
        };
        let refused = |ack| fields(outcome(Some(Wire::Ack(ack))));
        assert_eq!(refused(add(1_001, 0, 0)), ["ack.add_tasks"]);
        assert_eq!(refused(add(1, 1 << 19, (1 << 19) + 1)), ["ack.add_tasks"]);
        assert!(parse(outcome(Some(Wire::Ack(add(1_000, 9, 9))))).is_ok());
    }

    #[test]
    fn a_large_state_of_a_suspended_task_is_refused() {
        let suspend = wire::Suspend {
            prompt: String::new(),
            state: vec![0; (64 << 10) + 1].into(),
        };
        assert_eq!(
            fields(outcome(Some(Wire::Suspend(suspend)))),
            ["suspend.state"]
        );
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut_reason("x".repeat(1_024)).len(), 1_024);
        // `ä` has two bytes: the last one of 1,024 would be half of one.
        let cut = cut_reason(format!("x{}", "ä".repeat(600)));
        assert_eq!(cut.len(), 1_023);
    }
}
