//! Checks the calls around messages: who publishes where, who fetches, who joins.
//!
//! Each check returns what the call says with its defaults filled in, or every fault at once.
//! Messages inside a publish are checked by `message`, outcomes by `outcome`: in a batch each of
//! them is judged on its own.

use hive_domain::{
    capability::CapabilitySet,
    name,
    violation::{Violation, Violations},
};
use prost::Message as _;

use crate::{
    fault::{Fault, Reason},
    limits::{
        BATCH_BYTES_MAX, BATCH_ITEMS_MAX, CAPABILITIES_MAX, CONCURRENCY_MAX, COUNT_MAX,
        CURSOR_BYTES_MAX, FETCH_MESSAGES_DEFAULT, FETCH_MESSAGES_MAX, IN_FLIGHT_MAX,
        LEASE_BYTES_MAX, LEASES_MAX, PEEK_MESSAGES_DEFAULT, PEEK_MESSAGES_MAX, POD_BYTES_MAX,
        WAIT_MS_MAX,
    },
    message::at_most,
    time, wire,
};

/// Longest label of RFC 1123, in bytes: the name of a namespace of Kubernetes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest subdomain of RFC 1123, in bytes: the name of a pod.
const SUBDOMAIN_BYTES_MAX: usize = 253;

/// Where a publish goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every group of this stream.
    Stream(String),
    /// This group alone.
    Group(String),
}

/// Who publishes, and the number of its first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its id, a name.
    pub id: String,
    /// Sequence of the first message, from 1.
    pub first_sequence: u64,
}

/// A checked fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The group.
    pub group: String,
    /// The agent.
    pub consumer_id: String,
    /// Most messages, 1 to 1,000.
    pub max_messages: u32,
    /// How long to wait for the first one, 0 to 30 s.
    pub wait_ms: u64,
    /// What the agent can do.
    pub capabilities: CapabilitySet,
    /// The same id repeats the same answer.
    pub request_id: Option<String>,
}

/// A checked join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: String,
    /// The agent.
    pub consumer_id: String,
    /// The session to go on with; none at the first join.
    pub session: Option<String>,
    /// What the agent can do.
    pub capabilities: CapabilitySet,
    /// Most deliveries it may hold, 1 to 10,000; none for the group's limit.
    pub max_in_flight: Option<u32>,
    /// How many it works on at once, 1 to 10,000.
    pub concurrency: u32,
    /// Leases that it still holds.
    pub held_leases: Vec<String>,
    /// Whether it takes offers of other groups' work.
    pub accepts_offers: bool,
    /// Name of its pod as `namespace/name`; none outside Kubernetes.
    pub pod: Option<String>,
}

/// A checked look at a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// The group.
    pub group: String,
    /// Only messages in this state; none for all.
    pub state: Option<wire::MessageState>,
    /// Most messages, 1 to 1,000.
    pub limit: u32,
    /// Where to go on; none for the beginning.
    pub cursor: Option<String>,
}

/// The target of a publish: exactly one of `stream` and `group` is set.
///
/// # Errors
/// The violations: both, none, or not a name.
pub fn target(stream: &str, group: &str) -> Result<Target, Violations> {
    match (stream, group) {
        ("", "") => Err(Violations::one(
            "stream",
            "exactly one of stream and group must be set",
        )),
        (stream, "") => {
            name::check("stream", stream)?;
            Ok(Target::Stream(stream.to_owned()))
        },
        ("", group) => {
            name::check("group", group)?;
            Ok(Target::Group(group.to_owned()))
        },
        (stream, group) => Err(Violations::one(
            "group",
            format!("`{group}` and stream `{stream}` are both set, exactly one must be"),
        )),
    }
}

/// The producer of a publish, if it names one. `field` is what the call calls its sequence; `count`
/// messages are numbered from it.
///
/// # Errors
/// The violations: not a name, a sequence without a producer, a sequence of 0, or one beyond what
/// is counted exactly.
pub fn producer(
    id: &str,
    field: &str,
    sequence: u64,
    count: usize,
) -> Result<Option<Producer>, Violations> {
    if id.is_empty() {
        return match sequence {
            0 => Ok(None),
            _ => Err(Violations::one(
                field,
                format!("`{sequence}` needs a producer_id"),
            )),
        };
    }
    let mut faults = Violations::new();
    faults.take(name::check("producer_id", id));
    let last = u64::try_from(count)
        .ok()
        .and_then(|count| sequence.checked_add(count));
    if sequence == 0 || last.is_none_or(|last| last > COUNT_MAX) {
        faults.push(
            field,
            format!("`{sequence}` must be between 1 and {COUNT_MAX}"),
        );
    }
    faults.into_result()?;
    Ok(Some(Producer {
        id: id.to_owned(),
        first_sequence: sequence,
    }))
}

/// Checks the number and the size of the messages of a batch; each message is judged on its own
/// later.
///
/// # Errors
/// `INVALID_ARGUMENT` for an empty batch, `BATCH_TOO_LARGE` for more than 1,000 messages or 4 MiB.
pub fn batch(messages: &[wire::Message]) -> Result<(), Fault> {
    items("messages", messages.len())?;
    let bytes: usize = messages.iter().map(wire::Message::encoded_len).sum();
    // One message may be larger than a batch where the gateway allows such payloads.
    if messages.len() > 1 {
        at_most("messages", bytes, BATCH_BYTES_MAX)
            .map_err(|fault| Fault::invalid_because(Reason::BatchTooLarge, fault.into()))?;
    }
    Ok(())
}

/// Checks the number of items of a batch `field`.
///
/// # Errors
/// `INVALID_ARGUMENT` for none, `BATCH_TOO_LARGE` for more than 1,000.
pub fn items(field: &str, len: usize) -> Result<(), Fault> {
    let fault = |reason| {
        let rule = format!("has `{len}` items and must have 1 to {BATCH_ITEMS_MAX}");
        Fault::invalid_because(reason, Violations::one(field, rule))
    };
    match len {
        0 => Err(fault(Reason::InvalidArgument)),
        len if len > BATCH_ITEMS_MAX => Err(fault(Reason::BatchTooLarge)),
        _ => Ok(()),
    }
}

/// Checks a fetch and fills in its defaults.
///
/// # Errors
/// All violations.
pub fn fetch(request: &wire::FetchRequest) -> Result<Fetch, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check("group", &request.group));
    faults.take(name::check("consumer_id", &request.consumer_id));
    faults.take(name::check_optional("request_id", &request.request_id));
    let max_messages = or_default(request.max_messages, FETCH_MESSAGES_DEFAULT);
    check_max(
        "max_messages",
        max_messages,
        FETCH_MESSAGES_MAX,
        &mut faults,
    );
    let wait_ms = wait(request.wait.as_ref(), &mut faults);
    let capabilities = capabilities(&request.capabilities, &mut faults);
    faults.into_result()?;
    Ok(Fetch {
        group: request.group.clone(),
        consumer_id: request.consumer_id.clone(),
        max_messages,
        wait_ms,
        capabilities,
        request_id: some_text(&request.request_id),
    })
}

/// Checks a join and fills in its defaults.
///
/// # Errors
/// All violations.
pub fn join(request: wire::Join) -> Result<Join, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check("group", &request.group));
    faults.take(name::check("consumer_id", &request.consumer_id));
    faults.take(name::check_optional("session", &request.session));
    check_max(
        "max_in_flight",
        request.max_in_flight,
        IN_FLIGHT_MAX,
        &mut faults,
    );
    check_max(
        "concurrency",
        request.concurrency,
        CONCURRENCY_MAX,
        &mut faults,
    );
    let capabilities = capabilities(&request.capabilities, &mut faults);
    if let Err(inner) = leases("held_leases", &request.held_leases) {
        faults.nest("", inner);
    }
    if !request.pod.is_empty() {
        faults.take(pod("pod", &request.pod));
    }
    faults.into_result()?;
    Ok(Join {
        session: some_text(&request.session),
        group: request.group,
        consumer_id: request.consumer_id,
        capabilities,
        max_in_flight: (request.max_in_flight > 0).then_some(request.max_in_flight),
        concurrency: or_default(request.concurrency, 1),
        held_leases: request.held_leases,
        accepts_offers: request.accepts_offers,
        pod: some_text(&request.pod),
    })
}

/// Checks the name of a pod: `namespace/name`, a label and a subdomain of RFC 1123.
///
/// # Errors
/// The violation of `field`.
pub fn pod(field: &str, pod: &str) -> Result<(), Violation> {
    at_most(field, pod.len(), POD_BYTES_MAX)?;
    let is_pod = pod.split_once('/').is_some_and(|(namespace, name)| {
        let is_short = namespace.len() <= LABEL_BYTES_MAX && name.len() <= SUBDOMAIN_BYTES_MAX;
        is_short && is_label(namespace) && name.split('.').all(is_label)
    });
    if is_pod {
        return Ok(());
    }
    let rule = format!(
        "`{pod}` must be `namespace/name`, both of lower-case letters, digits and, inside, `-` \
         (in the name also `.`), of at most {LABEL_BYTES_MAX} and {SUBDOMAIN_BYTES_MAX} bytes"
    );
    Err(Violation::new(field, rule))
}

/// Whether these are the characters of a label of RFC 1123. Kubernetes bounds the length of a
/// subdomain alone, not of its labels.
fn is_label(part: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
}

/// Checks a list of lease tokens: their number and their size. Whether they are anybody's is for
/// the store to say.
///
/// # Errors
/// The violations of `field`.
pub fn leases(field: &str, leases: &[String]) -> Result<(), Violations> {
    let mut faults = Violations::new();
    if leases.len() > LEASES_MAX {
        let len = leases.len();
        faults.push(
            field,
            format!("has `{len}` leases and must have at most {LEASES_MAX}"),
        );
    } else if let Some(index) = leases
        .iter()
        .position(|lease| lease.is_empty() || lease.len() > LEASE_BYTES_MAX)
    {
        faults.push(
            format!("{field}[{index}]"),
            format!("must have 1 to {LEASE_BYTES_MAX} bytes"),
        );
    }
    faults.into_result()
}

/// Checks a look at a group and fills in its defaults.
///
/// # Errors
/// All violations.
pub fn peek(request: &wire::PeekMessagesRequest) -> Result<Peek, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check("group", &request.group));
    let limit = or_default(request.limit, PEEK_MESSAGES_DEFAULT);
    check_max("limit", limit, PEEK_MESSAGES_MAX, &mut faults);
    faults.take(at_most("cursor", request.cursor.len(), CURSOR_BYTES_MAX));
    let state = match wire::MessageState::try_from(request.state) {
        Ok(state) => (state != wire::MessageState::Unspecified).then_some(state),
        Err(unknown) => {
            faults.push("state", format!("`{}` is no known state", unknown.0));
            None
        },
    };
    faults.into_result()?;
    Ok(Peek {
        group: request.group.clone(),
        state,
        limit,
        cursor: some_text(&request.cursor),
    })
}

fn wait(wire: Option<&prost_types::Duration>, faults: &mut Violations) -> u64 {
    faults
        .take(time::optional_duration_ms("wait", wire, WAIT_MS_MAX))
        .flatten()
        .unwrap_or(0)
}

/// The set of a consumer's capabilities; empty with faults noted when there are any.
fn capabilities(names: &[String], faults: &mut Violations) -> CapabilitySet {
    CapabilitySet::checked("capabilities", names, CAPABILITIES_MAX).unwrap_or_else(|inner| {
        faults.nest("", inner);
        CapabilitySet::new()
    })
}

fn check_max(field: &str, value: u32, max: u32, faults: &mut Violations) {
    if value > max {
        faults.push(field, format!("`{value}` must be at most {max}"));
    }
}

const fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
