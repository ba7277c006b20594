//! Sends a dead letter back, once.
//!
//! A replay has three steps, each of which whoever comes first makes: the record becomes
//! `replaying` with the plan of the replay (by compare-and-set: of two who ask one begins); what
//! the plan says is sent under a key made of the record and the number of the replay, so that it is
//! there once however often it is sent; the record becomes `replayed`. Who dies between leaves a
//! record that is looked at again a few seconds later, and carried on by the same plan.

use std::time::Duration;

use bytes::Bytes;
use hive_domain::{
    dead_letter::{plan, status::Status},
    group::GroupState,
    stream::{Durability, StreamDefinition},
};
use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    limits::DIRECT_TTL_MS_DEFAULT,
    message, time, wire,
};
use hive_store::{
    Purpose,
    header::Header,
    lane::{Lane, LaneKind, LaneRef},
    letters::{Changed, Content, Count, Letter, Letters, Outcome, Plan, State, Step, Tally},
    publish::{self, Flush, Flushed, Idempotency, Item},
    tracked::tracking_key,
};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    desk::Desk,
    metrics::{self, Replayed},
    routers,
};

/// A replay under way is looked at again after so long: whoever began it has died by then.
pub(crate) const STALE_MS: u64 = 15_000;
/// When the outcome of a replay is looked at first.
const FIRST_LOOK_MS: u64 = 500;
/// The key of a replay is known to shards for 24 h; whoever comes later asks a person.
const KEY_KNOWN_MS: u64 = 23 * 3_600_000;
/// How often an address may change while something is sent to it.
const TRIES: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) target_group: String,
    pub(crate) target_stream: String,
    pub(crate) priority_boost: u8,
    /// In place of the payload.
    pub(crate) payload: Option<Bytes>,
    pub(crate) force: bool,
    pub(crate) by: String,
    pub(crate) why: String,
    /// A job, and the most that it may try; 0 for no limit.
    pub(crate) job: Option<(String, u64)>,
    pub(crate) is_automatic: bool,
}

/// How the first step ended.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is this caller's to carry on.
    Mine(Box<Letter>),
    /// It was replayed before.
    Before,
    /// Somebody else is at it.
    UnderWay(Box<Letter>),
    /// Somebody changed it meanwhile: read it again.
    Stale,
    /// The job has tried all that it may.
    Limit,
}

/// How the rest ended.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It was sent.
    Done(Box<Letter>),
    /// It was refused for good, and the record is what it was before.
    Refused(Fault),
    /// It cannot be sent now; the record stays `replaying`, and is looked at again.
    Later(Fault),
    /// Somebody else carried it on.
    Elsewhere,
}

/// Decides a replay of a record as it was read.
///
/// # Errors
/// Why it may not be replayed, or what Redis says.
pub(crate) async fn begin(
    desk: &Desk,
    letters: &Letters,
    letter: &Letter,
    ask: &Ask,
) -> Result<Begun, Fault> {
    if let Some(begun) = admit(letter, ask)? {
        return Ok(begun);
    }
    let facts = &letter.facts;
    let now_ms = desk.now().as_millis();
    // Of a replay that was refused too: its key may have been used.
    let last = letter.state.plan.as_ref().map_or(0, |plan| plan.number);
    let number = last.max(facts.past.replays).saturating_add(1);
    let plan = Plan {
        number,
        target_group: ask.target_group.clone(),
        target_stream: ask.target_stream.clone(),
        priority: plan::priority(facts.priority, ask.priority_boost),
        job: ask
            .job
            .as_ref()
            .map(|(id, _)| id.clone())
            .unwrap_or_default(),
        is_automatic: ask.is_automatic,
        is_edited: ask.payload.is_some(),
        decided_ms: now_ms,
        before: letter.status,
    };
    let why = if ask.why.is_empty() {
        format!("replay {number}")
    } else {
        format!("replay {number}: {}", ask.why)
    };
    let step = Step {
        state: State {
            plan: Some(plan),
            message_id: String::new(),
            sent_to: String::new(),
            track_key: String::new(),
            outcome: Outcome::Unknown,
            due_ms: 0,
            sent_ms: 0,
            ..letter.state.clone()
        },
        change: Some(desk.change(Status::Replaying, &ask.by, why)),
        edited: ask.payload.clone(),
        replaying_ms: now_ms.saturating_add(STALE_MS),
        awaiting_ms: 0,
        count: ask
            .job
            .as_ref()
            .map(|(id, limit)| (id.clone(), Count::Attempted { limit: *limit })),
        tally: None,
    };
    let changed = desk
        .store
        .change_letter(letters, letter, Status::Replaying, &step)
        .await?;
    Ok(match changed {
        Changed::Done(version) => Begun::Mine(Box::new(Letter {
            version,
            status: Status::Replaying,
            state: step.state,
            ..letter.clone()
        })),
        Changed::Stale => Begun::Stale,
        Changed::Limit => Begun::Limit,
    })
}

/// Whether a record may be replayed as it is; some answer where it was, or is being.
fn admit(letter: &Letter, ask: &Ask) -> Result<Option<Begun>, Fault> {
    let facts = &letter.facts;
    // Of what a job has sent it sends nothing again, by force neither: it may have begun anew.
    let last_job = letter.state.plan.as_ref().map(|plan| plan.job.as_str());
    if let Some((job, _)) = &ask.job
        && letter.status == Status::Replayed
        && last_job == Some(job.as_str())
    {
        return Ok(Some(Begun::Before));
    }
    match letter.status {
        Status::Replaying => return Ok(Some(Begun::UnderWay(Box::new(letter.clone())))),
        Status::Replayed if !ask.force => return Ok(Some(Begun::Before)),
        Status::PermanentFailure => {
            let message = format!(
                "dead letter `{}` is `permanent_failure`; set its status to `analyzed` first where \
                 it may be replayed after all",
                letter.id
            );
            return Err(Fault::new(Reason::DeadLetterState, message));
        },
        Status::Archived => {
            let message = format!("dead letter `{}` is archived, and stays so", letter.id);
            return Err(Fault::new(Reason::DeadLetterState, message));
        },
        Status::Replayed if facts.is_task() => {
            let message = format!(
                "attempt `{}` of its task was answered by `{}`: where that failed too, replay the \
                 dead letter of that one",
                facts.dispatch_key, letter.state.message_id
            );
            return Err(Fault::new(Reason::NotReplayable, message));
        },
        Status::Quarantined | Status::Analyzed | Status::Replayable | Status::Replayed => {},
    }
    if !facts.decodes {
        let message = format!("the bytes of dead letter `{}` are no message", letter.id);
        return Err(Fault::new(Reason::NotReplayable, message));
    }
    if facts.is_task() && !(ask.target_group.is_empty() && ask.target_stream.is_empty()) {
        let message = format!(
            "dead letter `{}` is a task of workflow `{}`: its router alone sends it back, to its \
             own group",
            letter.id, facts.workflow_id
        );
        return Err(Fault::new(Reason::NotReplayable, message));
    }
    let same = facts.past.same.saturating_add(letter.state.replays);
    plan::guard(same, ask.force).map_err(|guard| {
        let message = format!("dead letter `{}` was {guard}", letter.id);
        Fault::new(Reason::ReplayLoop, message)
    })?;
    Ok(None)
}

/// Carries out the plan of a record that is `replaying`.
///
/// # Errors
/// What Redis says of the record.
pub(crate) async fn carry_on(
    desk: &Desk,
    letters: &Letters,
    letter: Letter,
) -> Result<Sent, Fault> {
    let Some(plan) = letter.state.plan.clone() else {
        let fault = Fault::bug(format!(
            "dead letter `{}` is replaying without a plan",
            letter.id
        ));
        return refuse(desk, letters, letter, fault).await;
    };
    let now_ms = desk.now().as_millis();
    if now_ms.saturating_sub(plan.decided_ms) > KEY_KNOWN_MS {
        let message = "its replay was interrupted for a day, and whether it was sent is not known: \
                       look for its message, then set its status or replay it again";
        return refuse(
            desk,
            letters,
            letter,
            Fault::new(Reason::OutcomeUnknown, message),
        )
        .await;
    }
    let sent = if letter.facts.is_task() {
        retry_task(desk, letters, &letter).await
    } else {
        publish(desk, letters, &letter, &plan).await
    };
    match sent {
        Ok(sent) => finish(desk, letters, letter, &plan, sent).await,
        Err(fault) if !is_passing(&fault) => refuse(desk, letters, letter, fault).await,
        Err(fault) => Ok(Sent::Later(fault)),
    }
}

/// Whether trying again helps.
pub(crate) fn is_passing(fault: &Fault) -> bool {
    fault.retry_after.is_some()
        || matches!(
            fault.kind,
            FaultKind::Unavailable | FaultKind::Saturated | FaultKind::Timeout
        )
}

/// What was sent.
#[derive(Debug, Clone, Default)]
struct Parcel {
    message_id: String,
    sent_to: String,
    track_key: String,
}

async fn finish(
    desk: &Desk,
    letters: &Letters,
    letter: Letter,
    plan: &Plan,
    sent: Parcel,
) -> Result<Sent, Fault> {
    let now_ms = desk.now().as_millis();
    let is_tracked = !sent.track_key.is_empty();
    let why = format!(
        "replay {} was sent as message `{}`",
        plan.number, sent.message_id
    );
    let by = by(plan);
    let step = Step {
        state: State {
            replays: letter.state.replays.saturating_add(1),
            automatic: letter
                .state
                .automatic
                .saturating_add(u32::from(plan.is_automatic)),
            message_id: sent.message_id,
            sent_to: sent.sent_to,
            track_key: sent.track_key,
            outcome: Outcome::Pending,
            sent_ms: now_ms,
            ..letter.state.clone()
        },
        change: Some(desk.change(Status::Replayed, &by, why)),
        awaiting_ms: if is_tracked {
            now_ms.saturating_add(FIRST_LOOK_MS)
        } else {
            0
        },
        count: (!plan.job.is_empty()).then(|| (plan.job.clone(), Count::Replayed)),
        tally: Some(Tally::Sent),
        ..Step::of(&letter)
    };
    let changed = desk
        .store
        .change_letter(letters, &letter, Status::Replayed, &step)
        .await?;
    let Changed::Done(version) = changed else {
        return Ok(Sent::Elsewhere);
    };
    metrics::replayed(match (plan.is_automatic, plan.job.is_empty()) {
        (true, _) => Replayed::Automatic,
        (false, false) => Replayed::Job,
        (false, true) => Replayed::Single,
    });
    Ok(Sent::Done(Box::new(Letter {
        version,
        status: Status::Replayed,
        state: step.state,
        ..letter
    })))
}

/// The record is what it was, but for its history; one that went back by itself waits for a person.
async fn refuse(
    desk: &Desk,
    letters: &Letters,
    letter: Letter,
    fault: Fault,
) -> Result<Sent, Fault> {
    let plan = letter.state.plan.clone().unwrap_or_default();
    let status = match plan.before {
        Status::Quarantined | Status::Analyzed | Status::Replayable | Status::Replaying => {
            Status::Analyzed
        },
        // Forced: what was sent before stays sent.
        status @ (Status::Replayed | Status::PermanentFailure | Status::Archived) => status,
    };
    let by = by(&plan);
    let why = format!("replay {} was refused: {fault}", plan.number);
    let step = Step {
        change: Some(desk.change(status, &by, why)),
        count: (!plan.job.is_empty()).then(|| (plan.job.clone(), Count::Failed)),
        ..Step::of(&letter)
    };
    desk.store
        .change_letter(letters, &letter, status, &step)
        .await?;
    Ok(Sent::Refused(fault))
}

fn by(plan: &Plan) -> String {
    match (plan.is_automatic, plan.job.is_empty()) {
        (true, _) => "recovery".to_owned(),
        (false, false) => format!("job {}", plan.job),
        (false, true) => "replay".to_owned(),
    }
}

async fn retry_task(desk: &Desk, letters: &Letters, letter: &Letter) -> Result<Parcel, Fault> {
    let facts = &letter.facts;
    let failed = facts.dispatch_key.rsplit('/').next();
    let failed_attempt = failed.and_then(|attempt| attempt.parse().ok());
    let failed_attempt = failed_attempt.ok_or_else(|| {
        Fault::new(
            Reason::NotReplayable,
            format!("`{}` names no attempt of a task", facts.dispatch_key),
        )
    })?;
    let plan = letter.state.plan.as_ref();
    let payload = if plan.is_some_and(|plan| plan.is_edited) {
        content(desk, letters, letter).await?.edited
    } else {
        None
    };
    let request = wire::RetryTaskRequest {
        workflow_id: facts.workflow_id.clone(),
        run_id: facts.run_id.clone(),
        task_id: facts.task_id.clone(),
        failed_attempt,
        payload,
    };
    let answer = routers::retry_task(&desk.routers, letters.namespace(), request).await?;
    // An earlier call, of this replay where it was interrupted, asked for the next attempt; where
    // there was one behind that, this failure is not what the task waits for.
    if answer.duplicate && answer.attempt > failed_attempt.saturating_add(1) {
        let message = format!(
            "attempt {failed_attempt} of its task was answered long ago; the task is at attempt {}",
            answer.attempt
        );
        return Err(Fault::new(Reason::NotReplayable, message));
    }
    let prefix = facts
        .dispatch_key
        .rsplit_once('/')
        .map_or("", |(prefix, _)| prefix);
    let dispatch_key = format!("{prefix}/{}", answer.attempt);
    Ok(Parcel {
        message_id: dispatch_key.replace('/', "."),
        sent_to: facts.group.clone(),
        track_key: dispatch_key,
    })
}

/// Publishes what the plan says, under its key.
async fn publish(
    desk: &Desk,
    letters: &Letters,
    letter: &Letter,
    plan: &Plan,
) -> Result<Parcel, Fault> {
    let content = content(desk, letters, letter).await?;
    for _ in 0..TRIES {
        let target = target(desk, letters.namespace(), letter, plan).await?;
        let (item, parcel) = item(desk, letter, plan, &content, &target)?;
        let stream = &target.stream.settings;
        let (incarnation, number) = desk.next_flush();
        let flush = Flush {
            number,
            incarnation,
            max_backlog: stream.max_backlog,
            max_backlog_bytes: stream.max_backlog_bytes,
            buffer_without_groups: false,
            groups: target.groups,
            items: vec![item],
            durable: stream.durability == Durability::Local,
        };
        let shard = desk
            .store
            .shard(letters.namespace(), &target.stream.name, target.index);
        match desk.store.publish(&shard, &flush).await? {
            Flushed::Done(outcomes) => {
                judged(outcomes.first(), &target.stream.name, &target.group)?;
                // Whoever waits for work hears of it.
                desk.store.ring(Purpose::Publish, &shard).await?;
                return Ok(parcel);
            },
            Flushed::Closed => return Err(Fault::no_stream(&target.stream.name)),
            Flushed::GroupsChanged | Flushed::MemberByNow(_) => {},
        }
    }
    Err(Fault::new(
        Reason::Unreachable,
        "the groups of the stream keep changing",
    ))
}

/// What of a record is large, as its plan was made for it.
async fn content(desk: &Desk, letters: &Letters, letter: &Letter) -> Result<Content, Fault> {
    let content = desk.store.letter_content(letters, &letter.id).await?;
    let content = content.ok_or_else(|| Fault::no_dead_letter(&letter.id))?;
    if content.version == letter.version {
        Ok(content)
    } else {
        let message = format!("dead letter `{}` was changed by somebody else", letter.id);
        let fault = Fault::new(Reason::VersionConflict, message);
        Err(fault.with_retry_after(Duration::from_secs(1)))
    }
}

/// Where a replay goes.
struct Target {
    stream: StreamDefinition,
    index: u32,
    /// Empty for all groups of the stream.
    group: String,
    groups: Vec<String>,
}

async fn target(
    desk: &Desk,
    namespace: &str,
    letter: &Letter,
    plan: &Plan,
) -> Result<Target, Fault> {
    let facts = &letter.facts;
    let group = if plan.target_group.is_empty() && plan.target_stream.is_empty() {
        facts.group.as_str()
    } else {
        plan.target_group.as_str()
    };
    let (stream, index) = if !plan.target_stream.is_empty() {
        (plan.target_stream.clone(), 0)
    } else if group == facts.group {
        (facts.stream.clone(), facts.shard)
    } else {
        let found = desk.store.group(namespace, group).await?;
        (found.ok_or_else(|| Fault::no_group(group))?.stream, 0)
    };
    if !group.is_empty() {
        let found = desk.store.group(namespace, group).await?;
        let found = found.ok_or_else(|| Fault::no_group(group))?;
        if found.state == GroupState::Deleting || found.stream != stream {
            return Err(Fault::no_group(group));
        }
    }
    let definition = desk.store.stream(namespace, &stream).await?;
    let definition = definition.ok_or_else(|| Fault::no_stream(&stream))?;
    let groups = if group.is_empty() {
        let shard = desk.store.shard(namespace, &stream, index);
        desk.store.groups_on_shard(&shard).await?
    } else {
        Vec::new()
    };
    if group.is_empty() && groups.is_empty() {
        let message = format!("stream `{stream}` has no group: name a target_group");
        return Err(Fault::new(Reason::StreamWithoutGroups, message));
    }
    Ok(Target {
        stream: definition,
        index,
        group: group.to_owned(),
        groups,
    })
}

/// The message of a replay: a new one, that says what it repeats.
fn item(
    desk: &Desk,
    letter: &Letter,
    plan: &Plan,
    content: &Content,
    target: &Target,
) -> Result<(Item, Parcel), Fault> {
    let unreadable = || Fault::new(Reason::NotReplayable, "its bytes are no message");
    let (header, envelope) = Header::split(&content.body).map_err(|_bad| unreadable())?;
    let mut message = wire::Message::decode(envelope).map_err(|_bad| unreadable())?;
    let now_ms = desk.now().as_millis();
    let key = format!("~dlq/{}/{}", letter.id, plan.number);
    message.message_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string();
    message.replay_of.clone_from(&letter.id);
    message.replay_number = plan.number;
    message.priority = Some(u32::from(plan.priority));
    message.idempotency_key.clear();
    message.not_before = None;
    message.published_at = Some(time::to_timestamp(now_ms.into()));
    if let Some(payload) = content.edited.as_ref().filter(|_| plan.is_edited) {
        message.payload = payload.clone();
    }
    // The one consumer that it was for is a member of its own group.
    if target.group != letter.facts.group {
        message.to_agent.clear();
    }
    let is_tracked = !target.group.is_empty() && message.ordering_key.is_empty();
    message.track = is_tracked;
    // Its time to live was that of the first one; a direct message has one always.
    let expires_at_ms = if message.to_agent.is_empty() {
        0
    } else {
        now_ms.saturating_add(DIRECT_TTL_MS_DEFAULT)
    };
    message.expires_at = (expires_at_ms > 0).then(|| time::to_timestamp(expires_at_ms.into()));
    let lane = Lane {
        priority: plan.priority,
        kind: match (is_tracked, message.ordering_key.is_empty()) {
            (true, _) => LaneKind::Tracked,
            (false, true) => LaneKind::Plain,
            (false, false) => LaneKind::Ordered,
        },
        capabilities: message::required_capabilities(&message).to_string(),
        consumer: message.to_agent.clone(),
    };
    let lane = if target.group.is_empty() {
        LaneRef::of_all(lane)
    } else {
        LaneRef::of_group(&target.group, lane)
    };
    let track_key = if is_tracked {
        tracking_key(&message.message_id)
    } else {
        String::new()
    };
    let header = Header {
        priority: plan.priority,
        expires_at_ms,
        dispatch_key: track_key.as_str().into(),
        ..header
    };
    let item = Item {
        lanes: [lane].into(),
        body: header.join(&message.encode_to_vec()),
        producer: None,
        idempotency: Some(Idempotency {
            key,
            fingerprint: 0,
            message_id: message.message_id.clone(),
        }),
        ordering_key: message.ordering_key,
        not_before_ms: 0,
    };
    let parcel = Parcel {
        message_id: message.message_id,
        sent_to: target.group.clone(),
        track_key,
    };
    Ok((item, parcel))
}

/// Whether a shard has the message.
fn judged(outcome: Option<&publish::Outcome>, stream: &str, group: &str) -> Result<(), Fault> {
    use publish::Outcome as O;
    let full = |what: &str| {
        let message = format!("group `{group}` of stream `{stream}` {what}");
        Fault::new(Reason::StreamFull, message)
    };
    match outcome {
        // One of this key, or of this id, which is made of the key: ours.
        Some(O::Added | O::Duplicate(_) | O::TrackedBefore) => Ok(()),
        Some(O::BacklogFull) => Err(full("holds its limit of unsettled messages")),
        Some(O::BacklogBytesFull) => Err(full("holds its limit of bytes of unsettled messages")),
        Some(O::DedupFull) => Err(Fault::new(
            Reason::TooManyIdempotencyKeys,
            "too many idempotency keys are remembered",
        )),
        Some(O::NoGroup) => Err(Fault::no_group(group)),
        Some(O::NoGroups) => {
            let message = format!("stream `{stream}` has no group");
            Err(Fault::new(Reason::StreamWithoutGroups, message))
        },
        Some(O::KeyReused(_) | O::SeenSequence | O::EarlierRefused | O::RefusedBefore) | None => {
            Err(Fault::bug("a replay's publish was answered as another's"))
        },
    }
}

/// What the last replay of a record sent, for a caller. `replayed` says that it was this caller's.
pub(crate) fn answer(letter: &Letter, replayed: bool) -> wire::ReplayDeadLetterResponse {
    wire::ReplayDeadLetterResponse {
        replayed,
        message_id: letter.state.message_id.clone(),
        replay_number: letter.state.plan.as_ref().map_or(0, |plan| plan.number),
    }
}
