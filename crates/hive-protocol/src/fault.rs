//! What every refusal looks like inside: a kind, a stable reason, words for the caller, words for
//! the log.
//!
//! The reason decides the kind, so a fault cannot contradict itself, and a reader of the reason
//! word alone knows whether repeating helps. Codes and statuses of the doors stand in `status` and
//! `http`.

use std::{fmt, str::FromStr, time::Duration};

use hive_domain::{
    placement::Unserved,
    violation::{Violation, Violations},
};

/// What a fault means for the caller. The set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The request can never succeed; field violations say why.
    Invalid,
    /// The caller is not known.
    Unauthenticated,
    /// The caller is known and not allowed.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Created already, with other content.
    Exists,
    /// A legal request at the wrong moment.
    WrongState,
    /// The caller lost its lease, its attach or its ownership; nothing changed.
    Fenced,
    /// A quota or back-pressure; carries how long to wait.
    Saturated,
    /// Nothing was done, or repeating does no harm; try again with backoff.
    Unavailable,
    /// The deadline passed; whether it was done is unknown.
    Timeout,
    /// A version or feature that is not there.
    Unsupported,
    /// Stored bytes do not decode.
    Corrupt,
    /// An invariant is broken.
    Bug,
}

impl FaultKind {
    /// All 13 kinds.
    pub const ALL: [Self; 13] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Exists,
        Self::WrongState,
        Self::Fenced,
        Self::Saturated,
        Self::Unavailable,
        Self::Timeout,
        Self::Unsupported,
        Self::Corrupt,
        Self::Bug,
    ];

    /// Whether the same request may be sent again after a wait, without doing anything twice.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Saturated | Self::Unavailable)
    }

    /// Whether somebody has to look: the fault is ours, not the caller's and not the weather's.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        matches!(self, Self::Corrupt | Self::Bug)
    }
}

/// Declares [`Reason`] as one table: variant, word, kind, meaning.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $kind:ident;)+) => {
        /// Why, as a stable word that programs may compare. The list only grows; a retired word is
        /// never used for anything else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word, in upper snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What it means for the caller.
            #[must_use]
            pub const fn kind(self) -> FaultKind {
                match self {
                    $(Self::$variant => FaultKind::$kind,)+
                }
            }
        }
    };
}

reasons! {
    /// A field breaks a rule; the violations name it.
    InvalidArgument = "INVALID_ARGUMENT", Invalid;
    /// The body does not parse.
    MalformedBody = "MALFORMED_BODY", Invalid;
    /// The body's media type is not one that is understood.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", Invalid;
    /// The whole request is larger than a door takes.
    BodyTooLarge = "BODY_TOO_LARGE", Invalid;
    /// The payload of a message is larger than allowed.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", Invalid;
    /// A batch has too many items or bytes.
    BatchTooLarge = "BATCH_TOO_LARGE", Invalid;
    /// No group serves the type of a task or message.
    UnservedType = "UNSERVED_TYPE", Invalid;
    /// The caller is not known.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// The caller is known and not allowed.
    PermissionDenied = "PERMISSION_DENIED", Forbidden;
    /// There is nothing at this path.
    NotFound = "NOT_FOUND", NotFound;
    /// There is no such group.
    GroupNotFound = "GROUP_NOT_FOUND", NotFound;
    /// There is no such stream.
    StreamNotFound = "STREAM_NOT_FOUND", NotFound;
    /// The group has no such member.
    ConsumerNotFound = "CONSUMER_NOT_FOUND", NotFound;
    /// There is no such workflow.
    WorkflowNotFound = "WORKFLOW_NOT_FOUND", NotFound;
    /// The workflow has no such run.
    RunNotFound = "RUN_NOT_FOUND", NotFound;
    /// The run has no such task.
    TaskNotFound = "TASK_NOT_FOUND", NotFound;
    /// There is no tracked message of this id, or its outcome is no longer kept.
    MessageNotFound = "MESSAGE_NOT_FOUND", NotFound;
    /// The stream has no replay of this id, or it is no longer kept.
    ReplayNotFound = "REPLAY_NOT_FOUND", NotFound;
    /// There is no such dead letter, or none any more.
    DeadLetterNotFound = "DEAD_LETTER_NOT_FOUND", NotFound;
    /// There is no such replay job, or none any more.
    ReplayJobNotFound = "REPLAY_JOB_NOT_FOUND", NotFound;
    /// The task has no result.
    ResultNotFound = "RESULT_NOT_FOUND", NotFound;
    /// The history of the run has no such event, or none any more: watch from the beginning.
    EventNotFound = "EVENT_NOT_FOUND", NotFound;
    /// A group of this name exists with other settings.
    GroupExists = "GROUP_EXISTS", Exists;
    /// A stream of this name exists with other settings.
    StreamExists = "STREAM_EXISTS", Exists;
    /// A workflow of this id exists with other content.
    WorkflowExists = "WORKFLOW_EXISTS", Exists;
    /// The run has a task of this id with other content.
    TaskExists = "TASK_EXISTS", Exists;
    /// The task is complete with another result.
    ResultDiffers = "RESULT_DIFFERS", Exists;
    /// It exists already with other content; said by somebody else than us.
    AlreadyExists = "ALREADY_EXISTS", Exists;
    /// A message of this id is tracked already.
    MessageExists = "MESSAGE_EXISTS", Exists;
    /// A replay of this id exists with other settings.
    ReplayExists = "REPLAY_EXISTS", Exists;
    /// A replay job of this id exists with another filter or other settings.
    ReplayJobExists = "REPLAY_JOB_EXISTS", Exists;
    /// The idempotency key stands for another message.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", Exists;
    /// The moment is wrong; said by somebody else than us.
    FailedPrecondition = "FAILED_PRECONDITION", WrongState;
    /// The message is settled already.
    MessageOver = "MESSAGE_OVER", WrongState;
    /// A dead letter in this state cannot become what is asked for.
    DeadLetterState = "DEAD_LETTER_STATE", WrongState;
    /// The dead letter does not decode, or is a task, and cannot be replayed so.
    NotReplayable = "NOT_REPLAYABLE", WrongState;
    /// It was replayed three times and failed the same way each time: the next must be forced.
    ReplayLoop = "REPLAY_LOOP", WrongState;
    /// A purge needs the token of a dry run with the same filter, not older than 10 minutes.
    ConfirmationNeeded = "CONFIRMATION_NEEDED", WrongState;
    /// Several streams know a tracked message of this id: the group says which is meant.
    MessageAmbiguous = "MESSAGE_AMBIGUOUS", WrongState;
    /// The group still has unsettled messages.
    GroupNotEmpty = "GROUP_NOT_EMPTY", WrongState;
    /// The stream still has groups, unsettled messages or dead letters.
    StreamNotEmpty = "STREAM_NOT_EMPTY", WrongState;
    /// The group is paused.
    GroupPaused = "GROUP_PAUSED", WrongState;
    /// The group is being deleted, or was while the caller used it.
    GroupGone = "GROUP_GONE", WrongState;
    /// An earlier message of the same ordering key was refused.
    EarlierMessageRefused = "EARLIER_MESSAGE_REFUSED", WrongState;
    /// The stream has no group and does not buffer.
    StreamWithoutGroups = "STREAM_WITHOUT_GROUPS", WrongState;
    /// The run is over.
    WorkflowOver = "WORKFLOW_OVER", WrongState;
    /// The run is not over.
    WorkflowNotOver = "WORKFLOW_NOT_OVER", WrongState;
    /// The run is coming to an end.
    WorkflowEnding = "WORKFLOW_ENDING", WrongState;
    /// The workflow is not an open one, or was closed: no task can be added so.
    WorkflowNotOpen = "WORKFLOW_NOT_OPEN", WrongState;
    /// The task is final already.
    TaskOver = "TASK_OVER", WrongState;
    /// The task did not ask for input.
    TaskNotWaitingInput = "TASK_NOT_WAITING_INPUT", WrongState;
    /// The task cannot be retried.
    TaskNotRetryable = "TASK_NOT_RETRYABLE", WrongState;
    /// Somebody else changed it in between.
    VersionConflict = "VERSION_CONFLICT", WrongState;
    /// The first frame of a stream is not the one that opens it, or a frame came twice.
    FrameOutOfOrder = "FRAME_OUT_OF_ORDER", WrongState;
    /// The lease belongs to somebody else by now.
    StaleLease = "STALE_LEASE", Fenced;
    /// A newer session, attach or owner has taken over.
    Fenced = "FENCED", Fenced;
    /// A quota or a limit of load is reached.
    Saturated = "SATURATED", Saturated;
    /// The stream holds as many unsettled messages as it may.
    StreamFull = "STREAM_FULL", Saturated;
    /// The group has as many consumers as it may.
    GroupFull = "GROUP_FULL", Saturated;
    /// The stream has as many different sets of required capabilities as it may.
    TooManyCapabilitySets = "TOO_MANY_CAPABILITY_SETS", Saturated;
    /// The namespace keeps as many idempotency keys as it may.
    TooManyIdempotencyKeys = "TOO_MANY_IDEMPOTENCY_KEYS", Saturated;
    /// The namespace has as many replay jobs as it may.
    TooManyReplayJobs = "TOO_MANY_REPLAY_JOBS", Saturated;
    /// The stream has as many replays under way as it may.
    TooManyReplays = "TOO_MANY_REPLAYS", Saturated;
    /// The namespace has as many groups or streams as it may.
    TooManyGroups = "TOO_MANY_GROUPS", Saturated;
    /// The namespace has as many runs of workflows as it may.
    TooManyWorkflows = "TOO_MANY_WORKFLOWS", Saturated;
    /// The gateway holds as many connections as it may.
    TooManyConnections = "TOO_MANY_CONNECTIONS", Saturated;
    /// Redis has no memory left; deliveries and settles go on and make room.
    RedisFull = "REDIS_FULL", Saturated;
    /// Redis does not answer, or not yet.
    RedisUnavailable = "REDIS_UNAVAILABLE", Unavailable;
    /// Redis no longer holds the data that was known: it must come back, or its loss be accepted.
    DatasetChanged = "DATASET_CHANGED", Unavailable;
    /// The consumer is no member any more, or attached elsewhere, and nobody took its name: it may
    /// join again.
    SessionLost = "SESSION_LOST", Unavailable;
    /// This replica is going away; another one serves.
    Draining = "DRAINING", Unavailable;
    /// This replica does not serve yet.
    NotReady = "NOT_READY", Unavailable;
    /// The promised durability cannot be reached.
    DurabilityUnreachable = "DURABILITY_UNREACHABLE", Unavailable;
    /// The other side cannot be reached.
    Unreachable = "UNREACHABLE", Unavailable;
    /// No router is alive.
    NoRouter = "NO_ROUTER", Unavailable;
    /// No coordinator is alive.
    NoCoordinator = "NO_COORDINATOR", Unavailable;
    /// No dead-letter daemon is alive.
    NoDlq = "NO_DLQ", Unavailable;
    /// It may or may not have been done.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Timeout;
    /// The caller's deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", Timeout;
    /// This version does not know the call or the value.
    Unsupported = "UNSUPPORTED", Unsupported;
    /// The path does not take this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", Unsupported;
    /// It is designed and not built yet.
    NotBuilt = "NOT_BUILT", Unsupported;
    /// Stored bytes do not decode.
    Corrupt = "CORRUPT", Corrupt;
    /// What must be in Redis is gone.
    DataLoss = "DATA_LOSS", Corrupt;
    /// An invariant is broken.
    Bug = "BUG", Bug;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no reason this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the word is no reason that this version knows")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(word: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == word)
            .ok_or(UnknownReason)
    }
}

/// A refusal or a failure, on its way to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it means for the caller.
    pub kind: FaultKind,
    /// Why, as a stable word.
    pub reason: Reason,
    /// For the caller: what, which value, which rule. Lower case, no full stop.
    pub message: String,
    /// For the log only; never crosses a door.
    pub detail: Option<String>,
    /// Every field at fault.
    pub violations: Vec<Violation>,
    /// How long to wait before trying again; none when waiting does not help.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault of `reason`, with words for the caller.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: reason.kind(),
            reason,
            message: message.into(),
            detail: None,
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// A request whose fields break rules. The message repeats the violations, for callers that
    /// show nothing else.
    #[must_use]
    pub fn invalid(violations: Violations) -> Self {
        Self::invalid_because(Reason::InvalidArgument, violations)
    }

    /// As [`Fault::invalid`], with a more telling reason, e.g. [`Reason::PayloadTooLarge`].
    #[must_use]
    pub fn invalid_because(reason: Reason, violations: Violations) -> Self {
        let mut fault = Self::new(reason, format!("invalid request: {violations}"));
        fault.violations = violations.into_vec();
        fault
    }

    /// A request with one field that breaks a rule.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(Violations::one(field, description))
    }

    /// There is no group `name`.
    #[must_use]
    pub fn no_group(name: &str) -> Self {
        Self::new(Reason::GroupNotFound, format!("there is no group `{name}`"))
    }

    /// There is no stream `name`.
    #[must_use]
    pub fn no_stream(name: &str) -> Self {
        Self::new(
            Reason::StreamNotFound,
            format!("there is no stream `{name}`"),
        )
    }

    /// There is no workflow `id`.
    #[must_use]
    pub fn no_workflow(id: &str) -> Self {
        Self::new(
            Reason::WorkflowNotFound,
            format!("there is no workflow `{id}`"),
        )
    }

    /// The workflow has no run `id`.
    #[must_use]
    pub fn no_run(workflow: &str, id: &str) -> Self {
        Self::new(
            Reason::RunNotFound,
            format!("workflow `{workflow}` has no run `{id}`"),
        )
    }

    /// There is no such dead letter.
    #[must_use]
    pub fn no_dead_letter(id: &str) -> Self {
        let message = format!("there is no dead letter `{id}`, or none any more");
        Self::new(Reason::DeadLetterNotFound, message)
    }

    /// There is no such replay job.
    #[must_use]
    pub fn no_replay_job(id: &str) -> Self {
        let message = format!("there is no replay job `{id}`, or none any more");
        Self::new(Reason::ReplayJobNotFound, message)
    }

    /// The run has no task `id`.
    #[must_use]
    pub fn no_task(workflow: &str, id: &str) -> Self {
        Self::new(
            Reason::TaskNotFound,
            format!("workflow `{workflow}` has no task `{id}`"),
        )
    }

    /// A broken invariant: `detail` names it for the log, the caller learns only that it is ours.
    pub fn bug(detail: impl Into<String>) -> Self {
        Self::new(
            Reason::Bug,
            "an invariant is broken; the log of the server names it",
        )
        .with_detail(detail)
    }

    /// The same fault, with how long to wait before trying again.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same fault, with words for the log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Whether the same request may be sent again after a wait, without doing anything twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Violations> for Fault {
    fn from(violations: Violations) -> Self {
        Self::invalid(violations)
    }
}

impl From<Unserved> for Fault {
    fn from(unserved: Unserved) -> Self {
        Self::new(Reason::UnservedType, unserved.to_string())
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::invalid(violation.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hive_domain::violation::Violations;

    use super::{Fault, FaultKind, Reason};

    #[test]
    fn every_reason_has_its_own_word_in_upper_snake_case() {
        let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for word in words {
            assert!(
                word.chars().all(|c| c.is_ascii_uppercase() || c == '_'),
                "{word}"
            );
        }
    }

    #[test]
    fn every_word_parses_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert!("SOMETHING_ELSE".parse::<Reason>().is_err());
    }

    #[test]
    fn every_kind_has_a_reason() {
        for kind in FaultKind::ALL {
            assert!(
                Reason::ALL.iter().any(|reason| reason.kind() == kind),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn an_invalid_request_shows_its_violations_in_the_message_too() {
        let mut faults = Violations::new();
        faults.push("group", "must not be empty");
        faults.push("wait", "`9 h` is too long");
        let fault = Fault::invalid(faults);
        assert_eq!(
            fault.to_string(),
            "INVALID_ARGUMENT: invalid request: group: must not be empty; wait: `9 h` is too long"
        );
        assert_eq!(fault.violations.len(), 2);
    }
}
