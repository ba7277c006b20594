//! The metrics of `hive-gateway`; those of the chassis come with it.

use hive_runtime::metrics::{Counter, Gauge, Histogram, Label, MetricDef, MetricKind, Unit};

const VERDICTS: &[&str] = &["ok", "gone", "stale_lease", "unknown_lease", "invalid"];
const REASONS: &[&str] = &[
    "connection_lost",
    "lease_expired",
    "no_progress",
    "left",
    "fenced",
    "lost_reply",
];

const PUBLISHED: MetricDef = MetricDef {
    name: "hive_gateway_messages_published_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Messages that this gateway added to streams, without duplicates",
    labels: &[],
};
const DELIVERED: MetricDef = MetricDef {
    name: "hive_gateway_messages_delivered_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Messages that this gateway leased to consumers, redeliveries included",
    labels: &[],
};
const SETTLED: MetricDef = MetricDef {
    name: "hive_gateway_settles_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Outcomes that this gateway judged, by verdict",
    labels: &[Label::of("verdict", VERDICTS)],
};
const GIVEN_BACK: MetricDef = MetricDef {
    name: "hive_gateway_deliveries_given_back_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Deliveries that this gateway took from a consumer without an outcome, by reason",
    labels: &[Label::of("reason", REASONS)],
};
const CONNECTIONS: MetricDef = MetricDef {
    name: "hive_gateway_consumer_connections",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "Consume streams that are open at this gateway",
    labels: &[],
};
const FLUSH_MESSAGES: MetricDef = MetricDef {
    name: "hive_gateway_flush_messages",
    kind: MetricKind::Histogram {
        buckets: &[1.0, 4.0, 16.0, 64.0, 256.0, 500.0],
    },
    unit: Unit::Count,
    help: "Messages of one flush to Redis",
    labels: &[],
};
const FETCHES: MetricDef = MetricDef {
    name: "hive_gateway_fetches_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Reads of new work from Redis, by path",
    labels: &[Label::of("path", &["script", "plain"])],
};

const DATASET_CHANGED: MetricDef = MetricDef {
    name: "hive_dataset_changed",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "1 while Redis holds other data than this daemon knew and nothing is served, else 0",
    labels: &[],
};

/// Every metric of this daemon.
pub const TABLE: &[MetricDef] = &[
    PUBLISHED,
    DELIVERED,
    SETTLED,
    GIVEN_BACK,
    CONNECTIONS,
    FLUSH_MESSAGES,
    FETCHES,
    DATASET_CHANGED,
];

/// The instruments of this daemon.
#[derive(Debug)]
pub struct Metrics {
    /// Messages added to streams.
    pub published: Counter,
    /// Messages leased to consumers.
    pub delivered: Counter,
    /// Outcomes taken.
    pub settled_ok: Counter,
    /// Outcomes for what was settled before.
    pub settled_gone: Counter,
    /// Outcomes with a lease that is another's.
    pub settled_stale: Counter,
    /// Outcomes with a token of no lease of the group.
    pub settled_unknown: Counter,
    /// Outcomes that break a rule.
    pub settled_invalid: Counter,
    /// Deliveries taken from consumers whose connection was lost.
    pub given_back_lost: Counter,
    /// Deliveries taken from consumers whose lease ended.
    pub given_back_expired: Counter,
    /// Deliveries taken from consumers whose handlers report no progress.
    pub given_back_hung: Counter,
    /// Deliveries given back by consumers that left.
    pub given_back_left: Counter,
    /// Deliveries taken from sessions that a newer one fenced out.
    pub given_back_fenced: Counter,
    /// Deliveries that nobody holds, because a reply was lost.
    pub given_back_reply: Counter,
    /// Open Consume streams.
    pub connections: Gauge,
    /// Messages of one flush.
    pub flush_messages: Histogram,
    /// Script fetches.
    pub fetches_script: Counter,
    /// Plain fetches.
    pub fetches_plain: Counter,
    /// Whether Redis holds other data than was known.
    pub dataset_changed: Gauge,
}

impl Metrics {
    /// Builds the instruments from the table.
    #[must_use]
    pub fn new() -> Self {
        Self {
            published: Counter::new(&PUBLISHED, &[]),
            delivered: Counter::new(&DELIVERED, &[]),
            settled_ok: Counter::new(&SETTLED, &["ok"]),
            settled_gone: Counter::new(&SETTLED, &["gone"]),
            settled_stale: Counter::new(&SETTLED, &["stale_lease"]),
            settled_unknown: Counter::new(&SETTLED, &["unknown_lease"]),
            settled_invalid: Counter::new(&SETTLED, &["invalid"]),
            given_back_lost: Counter::new(&GIVEN_BACK, &["connection_lost"]),
            given_back_expired: Counter::new(&GIVEN_BACK, &["lease_expired"]),
            given_back_hung: Counter::new(&GIVEN_BACK, &["no_progress"]),
            given_back_left: Counter::new(&GIVEN_BACK, &["left"]),
            given_back_fenced: Counter::new(&GIVEN_BACK, &["fenced"]),
            given_back_reply: Counter::new(&GIVEN_BACK, &["lost_reply"]),
            connections: Gauge::new(&CONNECTIONS, &[]),
            flush_messages: Histogram::new(&FLUSH_MESSAGES, &[]),
            fetches_script: Counter::new(&FETCHES, &["script"]),
            fetches_plain: Counter::new(&FETCHES, &["plain"]),
            dataset_changed: Gauge::new(&DATASET_CHANGED, &[]),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
