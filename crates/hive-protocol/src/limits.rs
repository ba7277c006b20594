//! Every number that bounds what crosses a door.
//!
//! Ranges of group and stream settings stand with them in `hive_domain`; here are the limits of
//! messages, calls and connections.

/// Largest payload of a message unless the gateway is configured otherwise: 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Longest media type of a payload, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// Most headers of a message.
pub const HEADERS_MAX: usize = 64;
/// Largest sum of all header names and values of a message: 8 KiB.
pub const HEADERS_BYTES_MAX: usize = 8 << 10;
/// Longest correlation id, in bytes.
pub const CORRELATION_ID_BYTES_MAX: usize = 256;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Longest ordering key, in bytes.
pub const ORDERING_KEY_BYTES_MAX: usize = 256;
/// Most capabilities that a message may require.
pub const REQUIRED_CAPABILITIES_MAX: usize = 16;
/// Most capabilities of a consumer.
pub const CAPABILITIES_MAX: usize = 64;
/// Highest priority; 0 is the lowest.
pub const PRIORITY_MAX: u8 = hive_domain::dead_letter::plan::PRIORITY_MAX;
/// Priority of a message that names none.
pub const PRIORITY_DEFAULT: u8 = 4;
/// How far ahead `not_before` may lie: 365 days, in milliseconds.
pub const NOT_BEFORE_AHEAD_MS_MAX: u64 = 365 * 86_400_000;
/// How long a direct message waits for a consumer that is no member: 24 h, in milliseconds.
pub const DIRECT_TTL_MS_DEFAULT: u64 = 86_400_000;
/// Most attempts that the retry policy of a message may allow.
pub const MAX_ATTEMPTS_MAX: u32 = hive_domain::group::MAX_ATTEMPTS_MAX;
/// Longest first backoff: 1 h, in milliseconds.
pub const INITIAL_BACKOFF_MS_MAX: u64 = hive_domain::group::INITIAL_BACKOFF_MS_MAX;
/// Longest backoff: 24 h, in milliseconds.
pub const MAX_BACKOFF_MS_MAX: u64 = hive_domain::group::MAX_BACKOFF_MS_MAX;

/// Most items in one batch: messages of a publish, outcomes of a settle.
pub const BATCH_ITEMS_MAX: usize = 1_000;
/// Largest batch of messages, encoded: 4 MiB. A fetch ends here too.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Largest gRPC message and largest REST body: 16 MiB. Leaves room for base64 and JSON around a
/// batch of 4 MiB.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Most messages of one fetch.
pub const FETCH_MESSAGES_MAX: u32 = 1_000;
/// Messages of a fetch that names no number.
pub const FETCH_MESSAGES_DEFAULT: u32 = 10;
/// Longest wait of a fetch and of a question for an outcome: 30 s, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;
/// Most messages of one look at a group.
pub const PEEK_MESSAGES_MAX: u32 = 1_000;
/// Messages of a look that names no number.
pub const PEEK_MESSAGES_DEFAULT: u32 = 100;
/// Longest cursor, in bytes; ours are far shorter.
pub const CURSOR_BYTES_MAX: usize = 1_024;

/// Most deliveries that one consumer may hold.
pub const IN_FLIGHT_MAX: u32 = 10_000;
/// Most deliveries that one consumer may work on at once.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Most leases in one heartbeat or join.
pub const LEASES_MAX: usize = 10_000;
/// Longest lease token, in bytes: a stream, a consumer and a session name and three numbers.
pub const LEASE_BYTES_MAX: usize = 1_024;
/// Largest number that scripts count exactly: 2^53 - 1.
pub const COUNT_MAX: u64 = hive_domain::stream::COUNT_MAX;

/// Longest reason of a nack or reject that is kept, in bytes; the rest is cut.
pub const REASON_BYTES_MAX: usize = 1 << 10;
/// Longest type of an error that is kept, in bytes; the rest is cut.
pub const ERROR_TYPE_BYTES_MAX: usize = 128;
/// Longest stack trace that is kept: 4 KiB; of a longer one the middle is left out.
pub const STACK_BYTES_MAX: usize = 4 << 10;
/// Largest result of an ack, tasks that it adds included: 1 MiB.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// Largest result of a tracked message that is kept: 64 KiB.
pub const TRACKED_RESULT_BYTES_MAX: usize = 64 << 10;
/// How long the outcome of a tracked message is kept: 24 h, in milliseconds.
pub const TRACKED_KEPT_MS: u64 = 86_400_000;
/// Most memory that the outcomes of one shard take, in bytes: 256 MiB. Then the oldest go sooner.
pub const TRACKED_KEPT_BYTES_MAX: u64 = 256 << 20;
/// Most messages per second of a replay.
pub const REPLAY_RATE_MAX: u32 = hive_domain::dead_letter::plan::RATE_MAX;
/// Messages per second of a replay that names no number.
pub const REPLAY_RATE_DEFAULT: u32 = 100;
/// Most types, and most senders, that a replay names.
pub const REPLAY_NAMES_MAX: usize = 100;
/// Most dead letters, and most replay jobs, of one list.
pub const DEAD_LETTERS_LIST_MAX: u32 = 1_000;
/// Dead letters, and replay jobs, of a list that names no number.
pub const DEAD_LETTERS_LIST_DEFAULT: u32 = 50;
/// Bytes of messages at which a list of dead letters with payloads ends.
pub const DEAD_LETTERS_PAGE_BYTES: usize = 4 << 20;
/// Most dead letters that are counted exactly.
pub const DEAD_LETTERS_COUNT_MAX: u64 = 10_000_000;
/// Most dead letters of one replay job.
pub const DEAD_LETTERS_REPLAY_MAX: u32 = hive_domain::dead_letter::plan::LIMIT_MAX;
/// Most dead letters that a replay job tries first.
pub const DEAD_LETTERS_CANARY_MAX: u32 = hive_domain::dead_letter::plan::CANARY_MAX;
/// Shortest time that an analysis looks back: 1 minute, in milliseconds.
pub const ANALYSIS_WINDOW_MS_MIN: u64 = 60_000;
/// Longest time that an analysis looks back: 7 days, in milliseconds.
pub const ANALYSIS_WINDOW_MS_MAX: u64 = 7 * 86_400_000;
/// Most tasks that an ack adds to its run.
pub const ADD_TASKS_MAX: usize = 1_000;
/// Largest state of a task that is suspended: 64 KiB.
pub const SUSPEND_STATE_BYTES_MAX: usize = 64 << 10;
/// Longest delay of a nack or release: 24 h, in milliseconds.
pub const SETTLE_DELAY_MS_MAX: u64 = 86_400_000;

/// Largest workflow, encoded, with the payloads of its tasks: 4 MiB.
pub const WORKFLOW_BYTES_MAX: usize = 4 << 20;
/// Most tasks that are added to a run at once.
pub const ADDED_TASKS_MAX: usize = 1_000;
/// Largest result of a task and largest answer to its question: 1 MiB.
pub const TASK_RESULT_BYTES_MAX: usize = 1 << 20;
/// Watches of one kind that a daemon holds, or hands on, at a time.
pub const FORWARDED_WATCHES_MAX: usize = 1_024;
/// Most runs of one list.
pub const LIST_RUNS_MAX: u32 = 1_000;
/// Runs of a list that names no number.
pub const LIST_RUNS_DEFAULT: u32 = 50;
/// Most events of one look at a history.
pub const HISTORY_EVENTS_MAX: u32 = 1_000;
/// Events of a look at a history that names no number.
pub const HISTORY_EVENTS_DEFAULT: u32 = 100;
/// Longest event id, in bytes; ours are far shorter.
pub const EVENT_ID_BYTES_MAX: usize = 64;

/// Longest name of a pod, `namespace/name`, in bytes.
pub const POD_BYTES_MAX: usize = 320;
/// Most groups that a look at connections names.
pub const CONNECTION_GROUPS_MAX: usize = 10_000;

/// The namespace of a call that names none.
pub const NAMESPACE_DEFAULT: &str = "default";
/// gRPC metadata key and HTTP header that names the namespace of a call.
pub const NAMESPACE_HEADER: &str = "hive-namespace";
