//! The metrics of `hive-coordinator`; those of the chassis come with it.

use std::time::Duration;

use hive_domain::scaling::Executor;
use hive_runtime::metrics::{
    Counter, Gauge, Histogram, Label, MetricDef, MetricKind, Unit, Values,
};
use hive_store::demand::GroupDemand;

use crate::scaling::state::Kind;

const LOOPS: Label = Label::of(
    "loop",
    &[
        "beat",
        "recover",
        "due",
        "tend",
        "audit",
        "replay",
        "scale",
        "rebalance",
        "options",
    ],
);
const RECOVERED_REASONS: Label = Label::of(
    "reason",
    &[
        "lease_expired",
        "unbegun",
        "no_member",
        "gateway_lost",
        "interrupted",
    ],
);
const DUE_KINDS: Label = Label::of("kind", &["delayed", "scheduled"]);
const EXPIRED_REASONS: Label = Label::of("reason", &["ttl", "no_capable_consumer", "retention"]);
const FORGOTTEN_REASONS: Label = Label::of("reason", &["age", "bytes"]);
const GONE_REASONS: Label = Label::of("reason", &["gateway_lost", "silent"]);
const INVARIANTS: Label = Label::of(
    "invariant",
    &[
        "placeholder_indexed",
        "counters",
        "delivery_has_entry",
        "lane_has_group",
    ],
);
/// A slice is to stay below 1 ms of Redis' time; a loop of many slices may take seconds.
const DURATIONS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> MetricDef {
    MetricDef {
        name,
        kind: MetricKind::Counter,
        unit: Unit::Count,
        help,
        labels,
    }
}

const fn total(name: &'static str, help: &'static str, labels: &'static [Label]) -> MetricDef {
    MetricDef {
        name,
        kind: MetricKind::Total,
        unit: Unit::Count,
        help,
        labels,
    }
}

const GROUP: Label = Label::open("group");
const NAMESPACE: Label = Label::open("namespace");
const SCALING_KINDS: Label = Label::of("kind", &["up", "down", "drain", "failing", "recovered"]);
const EXECUTORS: Label = Label::of("executor", &["kubernetes", "webhook"]);

const fn gauge(name: &'static str, help: &'static str, labels: &'static [Label]) -> MetricDef {
    MetricDef {
        name,
        kind: MetricKind::Gauge,
        unit: Unit::Count,
        help,
        labels,
    }
}

const OWNED_GROUPS: MetricDef = gauge(
    "hive_coordinator_owned_groups",
    "Scaled groups that this replica owns",
    &[],
);
/// What a coordinator tells of each group that it owns, in the order of [`GROUPS`]. While a group
/// changes its owner two replicas may tell of it for a moment: `max`, not `sum`, over replicas.
const OF_GROUP: &[Label] = &[NAMESPACE, GROUP];
const GROUP_CONSUMERS: MetricDef = gauge(
    "hive_group_consumers",
    "Consumers that are members of a group; this and all of a group is told by the replica that \
     owns it, at most 10 s old",
    OF_GROUP,
);
const GROUP_DESIRED: MetricDef = gauge(
    "hive_group_desired_consumers",
    "Wanted consumers of a scaled group",
    OF_GROUP,
);
const GROUP_LAG: MetricDef = gauge(
    "hive_group_lag",
    "Messages of a group that were accepted and never delivered",
    OF_GROUP,
);
const GROUP_PENDING: MetricDef = gauge(
    "hive_group_pending",
    "Messages of a group that were delivered and not settled: leased, ready and delayed",
    OF_GROUP,
);
const GROUP_READY: MetricDef = gauge(
    "hive_group_ready",
    "Messages of a group that were delivered before and are to be delivered again at once",
    OF_GROUP,
);
const GROUP_DELAYED: MetricDef = gauge(
    "hive_group_delayed",
    "Messages of a group that wait out a backoff, or for another one of their ordering key",
    OF_GROUP,
);
const GROUP_OLDEST: MetricDef = MetricDef {
    name: "hive_group_oldest_waiting_seconds",
    kind: MetricKind::Gauge,
    unit: Unit::Seconds,
    help: "Age of the oldest message of a group that was never delivered, 0 without one",
    labels: OF_GROUP,
};
const GROUP_PUBLISHED: MetricDef = total(
    "hive_group_published_total",
    "Messages accepted for a group; this and the other totals of a group count since it was made, \
     in Redis",
    OF_GROUP,
);
const GROUP_DELIVERED: MetricDef = total(
    "hive_group_delivered_total",
    "Deliveries to consumers of a group, redeliveries included",
    OF_GROUP,
);
const GROUP_ACKED: MetricDef = total(
    "hive_group_acked_total",
    "Messages of a group that were acked",
    OF_GROUP,
);
const GROUP_FAILED: MetricDef = total(
    "hive_group_failed_total",
    "Failed attempts at messages of a group",
    OF_GROUP,
);
const GROUP_RELEASED: MetricDef = total(
    "hive_group_released_total",
    "Messages of a group that consumers gave back uncounted",
    OF_GROUP,
);
const GROUP_EXPIRED: MetricDef = total(
    "hive_group_recovered_total",
    "Leases of a group that ended without an outcome: their messages were recovered",
    OF_GROUP,
);
const GROUP_DEAD: MetricDef = total(
    "hive_group_dead_total",
    "Messages of a group that were moved to the dead letters",
    OF_GROUP,
);
const GROUP_REDELIVERED: MetricDef = total(
    "hive_group_redelivered_total",
    "Deliveries of messages of a group that had been delivered before",
    OF_GROUP,
);
/// Every metric that is told of each group.
pub(crate) const GROUPS: [MetricDef; 15] = [
    GROUP_CONSUMERS,
    GROUP_DESIRED,
    GROUP_LAG,
    GROUP_PENDING,
    GROUP_READY,
    GROUP_DELAYED,
    GROUP_OLDEST,
    GROUP_PUBLISHED,
    GROUP_DELIVERED,
    GROUP_ACKED,
    GROUP_FAILED,
    GROUP_RELEASED,
    GROUP_EXPIRED,
    GROUP_DEAD,
    GROUP_REDELIVERED,
];
const REDIS_MEMORY: MetricDef = MetricDef {
    name: "hive_redis_memory_used_bytes",
    kind: MetricKind::Gauge,
    unit: Unit::Bytes,
    help: "Memory that Redis uses for data, as it says itself",
    labels: &[],
};
const REDIS_MEMORY_LIMIT: MetricDef = MetricDef {
    name: "hive_redis_memory_limit_bytes",
    kind: MetricKind::Gauge,
    unit: Unit::Bytes,
    help: "Memory beyond which Redis refuses publishes, 0 where it has no limit",
    labels: &[],
};
const REDIS_CLIENTS: MetricDef = gauge(
    "hive_redis_clients",
    "Connections to Redis, all of them",
    &[],
);
const REDIS_CPU: MetricDef = MetricDef {
    name: "hive_redis_cpu_seconds_total",
    kind: MetricKind::Total,
    unit: Unit::Seconds,
    help: "Processor time that Redis has used since its start",
    labels: &[],
};
/// What is counted by Redis itself.
pub(crate) const REDIS: [MetricDef; 1] = [REDIS_CPU];
const SCALING_EVENTS: MetricDef = counter(
    "hive_scaling_events_total",
    "Scaling decisions that changed what is wanted, drains that were told, and executors that \
     began to fail or recovered",
    &[SCALING_KINDS],
);
const SCALING_FENCED: MetricDef = counter(
    "hive_scaling_fenced_total",
    "Scaling decisions refused because another replica owns the group by now",
    &[],
);
const EXECUTOR_FAILURES: MetricDef = counter(
    "hive_scaling_executor_failures_total",
    "Attempts to carry a scaling wish out that failed; each is tried again with backoff",
    &[EXECUTORS],
);
const REVOKED: MetricDef = counter(
    "hive_messages_revoked_total",
    "Deliveries that consumers were asked back for, to even work out",
    &[],
);
const OFFERS: MetricDef = counter(
    "hive_group_offers_total",
    "Idle agents that were offered the work of another group",
    &[],
);
const OWNED: MetricDef = MetricDef {
    name: "hive_coordinator_owned_shards",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "Shards that this replica looks after",
    labels: &[],
};
const ROUND: MetricDef = MetricDef {
    name: "hive_coordinator_loop_duration_seconds",
    kind: MetricKind::Histogram { buckets: DURATIONS },
    unit: Unit::Seconds,
    help: "Time that one round of a loop took, Redis included",
    labels: &[LOOPS],
};
const ROUND_FAILURES: MetricDef = counter(
    "hive_coordinator_loop_failures_total",
    "Rounds of a loop that ended with an error; the next round tries again",
    &[LOOPS],
);
const SWEPT: MetricDef = counter(
    "hive_sweep_entries_total",
    "Deliveries that the sweep looked at",
    &[],
);
const RECOVERED: MetricDef = counter(
    "hive_messages_recovered_total",
    "Deliveries taken from whoever lost them; only `lease_expired` counts as a failed attempt",
    &[RECOVERED_REASONS],
);
const DUE: MetricDef = counter(
    "hive_messages_due_total",
    "Messages whose backoff or delay was over and that were moved to be delivered",
    &[DUE_KINDS],
);
const EXPIRED: MetricDef = counter(
    "hive_messages_expired_total",
    "Messages moved to the dead letters because their time was over",
    &[EXPIRED_REASONS],
);
const TRIMMED: MetricDef = counter(
    "hive_messages_trimmed_total",
    "Settled messages deleted because retention no longer keeps them",
    &[],
);
const OUTCOMES_FORGOTTEN: MetricDef = counter(
    "hive_outcomes_forgotten_total",
    "Outcomes of tracked messages that are no longer kept: by their age, or sooner for their bytes",
    &[FORGOTTEN_REASONS],
);
const REPLAYED: MetricDef = counter(
    "hive_messages_replayed_total",
    "Messages of a stream's history that were published once more",
    &[],
);
const MEMBERS_GONE: MetricDef = counter(
    "hive_members_expired_total",
    "Consumers whose membership was ended by a coordinator",
    &[GONE_REASONS],
);
const VIOLATIONS: MetricDef = counter(
    "hive_invariant_violations_total",
    "Broken invariants that the auditor found; each means a fault in this system, or lost data",
    &[INVARIANTS],
);
const DATA_LOSS: MetricDef = counter(
    "hive_data_loss_total",
    "Losses of data found in Redis, each counted once while its shard has the same owner",
    &[],
);

const DATASET_CHANGED: MetricDef = MetricDef {
    name: "hive_dataset_changed",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "1 while Redis holds other data than this daemon knew and nothing is served, else 0",
    labels: &[],
};

/// Every metric of this daemon itself.
pub const TABLE: &[MetricDef] = &[
    OWNED,
    OWNED_GROUPS,
    REDIS_MEMORY,
    REDIS_MEMORY_LIMIT,
    REDIS_CLIENTS,
    SCALING_EVENTS,
    SCALING_FENCED,
    EXECUTOR_FAILURES,
    REVOKED,
    OFFERS,
    ROUND,
    ROUND_FAILURES,
    SWEPT,
    RECOVERED,
    DUE,
    EXPIRED,
    TRIMMED,
    OUTCOMES_FORGOTTEN,
    REPLAYED,
    MEMBERS_GONE,
    VIOLATIONS,
    DATA_LOSS,
    DATASET_CHANGED,
];

/// Why an outcome is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// Its time was over.
    Age,
    /// All outcomes of its shard took too much memory.
    Bytes,
}

/// A loop of this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    /// Registry and ownership.
    Beat,
    /// Sweep and members.
    Recover,
    /// Delayed and scheduled messages.
    Due,
    /// Time to live, retention, half-made groups.
    Tend,
    /// Invariants.
    Audit,
    /// Replays of history.
    Replay,
    /// How many consumers groups want.
    Scale,
    /// Work that lies unevenly.
    Rebalance,
    /// The options that coordinators share.
    Options,
}

impl Loop {
    /// The word for it in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beat => "beat",
            Self::Recover => "recover",
            Self::Due => "due",
            Self::Tend => "tend",
            Self::Audit => "audit",
            Self::Replay => "replay",
            Self::Scale => "scale",
            Self::Rebalance => "rebalance",
            Self::Options => "options",
        }
    }
}

/// Why a delivery was taken from its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// Its lease ran out while its consumer was at work on it.
    LeaseExpired,
    /// Its lease ran out before its consumer began.
    Unbegun,
    /// Its owner is no member.
    NoMember,
    /// Its consumer's gateway died.
    GatewayLost,
    /// Whoever took it out to settle it was cut off.
    Interrupted,
}

/// Why a message died of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Its own time to live.
    Ttl,
    /// Its own time to live, and the consumer that it was for is no member.
    NoCapableConsumer,
    /// Its stream's retention.
    Retention,
}

/// Which invariant was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// An entry of a placeholder is in its index.
    PlaceholderIndexed,
    /// No more messages are settled and pending than were published.
    Counters,
    /// What is delivered and not settled has an entry.
    DeliveryHasEntry,
    /// A lane has the Redis group of every group that reads it.
    LaneHasGroup,
}

/// Why a membership was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its gateway died.
    GatewayLost,
    /// It made no call for too long.
    Silent,
}

pub(crate) fn owned_groups(count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Gauge::new(&OWNED_GROUPS, &[]).set(f64::from(count));
}

/// Tells what Redis says of itself in INFO; answers the values of [`REDIS`].
pub(crate) fn of_redis(info: &[(String, String)]) -> Values<1> {
    let of = |name: &str| {
        let found = info.iter().find(|(field, _)| field == name);
        found.and_then(|(_, value)| value.parse::<f64>().ok())
    };
    for (def, value) in [
        (&REDIS_MEMORY, of("used_memory")),
        (&REDIS_MEMORY_LIMIT, of("maxmemory")),
        (&REDIS_CLIENTS, of("connected_clients")),
    ] {
        if let Some(value) = value {
            Gauge::new(def, &[]).set(value);
        }
    }
    let cpu = of("used_cpu_user").zip(of("used_cpu_sys"));
    [cpu.map(|(user, sys)| user + sys)]
}

/// The values of one group, in the order of [`GROUPS`].
pub(crate) fn of_group(demand: &GroupDemand, desired: Option<u32>) -> Values<15> {
    let pending = demand.leased + demand.ready + demand.later;
    let delivered = demand.published.saturating_sub(demand.waiting) + demand.redelivered;
    let oldest = Duration::from_millis(demand.oldest_waiting_ms).as_secs_f64();
    [
        Some(f64::from(demand.consumers)),
        desired.map(f64::from),
        Some(number(demand.waiting)),
        Some(number(pending)),
        Some(number(demand.ready)),
        Some(number(demand.later)),
        Some(oldest),
        Some(number(demand.published)),
        Some(number(delivered)),
        Some(number(demand.acked)),
        Some(number(demand.failed)),
        Some(number(demand.released)),
        Some(number(demand.expired)),
        Some(number(demand.dead)),
        Some(number(demand.redelivered)),
    ]
}

/// A count as the text format has it: exact up to 2^53.
fn number(count: u64) -> f64 {
    let (high, low) = (count >> 32, count & 0xffff_ffff);
    let part = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

pub(crate) fn scaling_event(kind: Kind) {
    Counter::new(&SCALING_EVENTS, &[kind.as_str()]).increment(1);
}

pub(crate) fn scaling_fenced() {
    Counter::new(&SCALING_FENCED, &[]).increment(1);
}

pub(crate) fn executor_failed(executor: Executor) {
    Counter::new(&EXECUTOR_FAILURES, &[executor.as_str()]).increment(1);
}

pub(crate) fn revoked(messages: u64) {
    Counter::new(&REVOKED, &[]).increment(messages);
}

pub(crate) fn offered() {
    Counter::new(&OFFERS, &[]).increment(1);
}

pub(crate) fn owned_shards(count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Gauge::new(&OWNED, &[]).set(f64::from(count));
}

pub(crate) fn round(which: Loop, took: Duration) {
    Histogram::new(&ROUND, &[which.as_str()]).record(took.as_secs_f64());
}

pub(crate) fn round_failed(which: Loop) {
    Counter::new(&ROUND_FAILURES, &[which.as_str()]).increment(1);
}

pub(crate) fn swept(entries: u64) {
    Counter::new(&SWEPT, &[]).increment(entries);
}

pub(crate) fn recovered(reason: Recovered, messages: u64) {
    let reason = match reason {
        Recovered::LeaseExpired => "lease_expired",
        Recovered::Unbegun => "unbegun",
        Recovered::NoMember => "no_member",
        Recovered::GatewayLost => "gateway_lost",
        Recovered::Interrupted => "interrupted",
    };
    Counter::new(&RECOVERED, &[reason]).increment(messages);
}

pub(crate) fn due(delayed: u64, scheduled: u64) {
    Counter::new(&DUE, &["delayed"]).increment(delayed);
    Counter::new(&DUE, &["scheduled"]).increment(scheduled);
}

pub(crate) fn expired(reason: Expired, messages: u64) {
    let reason = match reason {
        Expired::Ttl => "ttl",
        Expired::NoCapableConsumer => "no_capable_consumer",
        Expired::Retention => "retention",
    };
    Counter::new(&EXPIRED, &[reason]).increment(messages);
}

pub(crate) fn outcomes_forgotten(reason: Forgotten, outcomes: u64) {
    let reason = match reason {
        Forgotten::Age => "age",
        Forgotten::Bytes => "bytes",
    };
    Counter::new(&OUTCOMES_FORGOTTEN, &[reason]).increment(outcomes);
}

pub(crate) fn replayed(messages: u64) {
    Counter::new(&REPLAYED, &[]).increment(messages);
}

pub(crate) fn trimmed(messages: u64) {
    Counter::new(&TRIMMED, &[]).increment(messages);
}

pub(crate) fn member_gone(reason: Gone) {
    let reason = match reason {
        Gone::GatewayLost => "gateway_lost",
        Gone::Silent => "silent",
    };
    Counter::new(&MEMBERS_GONE, &[reason]).increment(1);
}

pub(crate) fn violation(invariant: Invariant) {
    let invariant = match invariant {
        Invariant::PlaceholderIndexed => "placeholder_indexed",
        Invariant::Counters => "counters",
        Invariant::DeliveryHasEntry => "delivery_has_entry",
        Invariant::LaneHasGroup => "lane_has_group",
    };
    Counter::new(&VIOLATIONS, &[invariant]).increment(1);
}

pub(crate) fn data_lost() {
    Counter::new(&DATA_LOSS, &[]).increment(1);
}

pub(crate) fn dataset_changed(is_changed: bool) {
    Gauge::new(&DATASET_CHANGED, &[]).set(f64::from(u8::from(is_changed)));
}
