//! A consumer joins: membership, fencing, and what it holds from before.

use std::{collections::HashSet, sync::Arc};

use hive_protocol::{
    fault::{Fault, Reason},
    request, time, wire,
};
use hive_runtime::tasks::BACKGROUND;
use hive_store::{
    Lease, StoreError,
    members::{Joined as Answer, Joining, Kind},
    settle::{Action, Settle},
};
use uuid::Uuid;

use crate::{
    attached::{Attached, Frames, Member},
    catalog::GroupView,
    core::{Gateway, now_ms},
    ending::Ending,
    outcomes,
};

/// What a join came to.
pub(crate) struct Joined {
    pub(crate) view: Arc<GroupView>,
    pub(crate) attached: Arc<Attached>,
    pub(crate) frames: Frames,
    pub(crate) answer: wire::Joined,
}

/// A new session: 96 random bits as 24 hex digits. The first 12 digits of a v4 UUID are random; its
/// version stands behind them.
#[must_use]
pub fn new_session() -> String {
    let half = || {
        Uuid::new_v4()
            .simple()
            .to_string()
            .chars()
            .take(12)
            .collect::<String>()
    };
    half() + &half()
}

/// The fault of a join that was not taken.
pub(crate) fn refused(answer: &Answer, group: &str, consumer: &str) -> Fault {
    match answer {
        Answer::Full(members) => Fault::new(
            Reason::GroupFull,
            format!("group `{group}` has its limit of `{members}` consumers"),
        )
        .with_retry_after(std::time::Duration::from_secs(1)),
        Answer::AttachedByStream => Fault::new(
            Reason::Fenced,
            format!("consumer `{consumer}` is attached by a Consume stream"),
        ),
        Answer::SessionLost => Fault::new(
            Reason::Fenced,
            format!("the session of consumer `{consumer}` was taken over by another"),
        ),
        Answer::Gone => Fault::no_group(group),
        Answer::Member { .. } => Fault::bug("a taken join was refused"),
    }
}

/// Joins a consumer over a stream.
pub(crate) async fn join(
    gateway: &Arc<Gateway>,
    namespace: &str,
    join: request::Join,
) -> Result<Joined, Fault> {
    let view = gateway.catalog.group(namespace, &join.group).await?;
    let settings = &view.definition.settings;
    let answer = enter(gateway, &view, &join).await?;
    let Answer::Member {
        session, attach, ..
    } = answer
    else {
        return Err(refused(&answer, &join.group, &join.consumer_id));
    };
    let capacity = capacity(join.max_in_flight, settings.max_in_flight_per_consumer);
    let (attached, frames) = Attached::new(Member {
        consumer: join.consumer_id.clone(),
        session: session.clone(),
        attach,
        capabilities: join.capabilities.names().to_vec(),
        capacity,
        concurrency: join.concurrency,
        accepts_offers: join.accepts_offers,
        pod: join.pod.clone().unwrap_or_default(),
        progress_timeout_ms: settings.progress_timeout_ms,
    });
    let lost = match resume(gateway, &view, &attached, &join.held_leases).await {
        Ok(lost) => lost,
        Err(fault) => {
            // No connection will end this membership. To who resumes, it is as if the connection
            // had been lost right behind the join: what it holds is kept for the grace.
            let is_resumed = join.session.as_ref() == Some(&session);
            for lease in own(&attached, &join.held_leases) {
                attached.hold_again(lease, settings.lease_ms);
            }
            let ending = Ending {
                gateway: gateway.clone(),
                view: view.clone(),
                attached,
            };
            gateway.tasks.spawn(BACKGROUND, "join_failed", async move {
                if is_resumed {
                    ending.lost().await;
                } else {
                    // Nobody was told of the session.
                    ending.left().await;
                }
            });
            return Err(fault);
        },
    };
    let answer = wire::Joined {
        session,
        attach,
        lease_duration: Some(time::to_duration(settings.lease_ms)),
        heartbeat_interval: Some(time::to_duration(settings.heartbeat_ms())),
        reconnect_grace: Some(time::to_duration(settings.reconnect_grace_ms)),
        max_in_flight: capacity,
        lost_leases: lost,
    };
    Ok(Joined {
        view,
        attached,
        frames,
        answer,
    })
}

/// Enters under its session, or a new one: also where its own is no member any more, as it was away
/// for too long; what it still works on is named to it as lost then. Where the answer is lost the
/// new session may be a member all the same, and nobody was told of it: then it is ended, as no
/// connection will.
async fn enter(
    gateway: &Arc<Gateway>,
    view: &Arc<GroupView>,
    join: &request::Join,
) -> Result<Answer, StoreError> {
    let next = new_session();
    let joining = Joining {
        group: &join.group,
        consumer: &join.consumer_id,
        session: join.session.as_deref().unwrap_or(&next),
        resume: join.session.is_some().then_some(&next),
        kind: Kind::Stream,
        gateway: &gateway.incarnation,
        concurrency: join.concurrency,
        capabilities: join.capabilities.names(),
        max_consumers: view.definition.settings.max_consumers,
        lease_ms: view.definition.settings.lease_ms,
        pod: join.pod.as_deref().unwrap_or_default(),
    };
    let entered = gateway.store.join(&view.shard, &joining).await;
    if entered.as_ref().is_err_and(StoreError::is_transient) {
        let (attached, _frames) = Attached::new(Member {
            consumer: join.consumer_id.clone(),
            session: next,
            attach: FIRST_ATTACH,
            capabilities: Vec::new(),
            capacity: 0,
            concurrency: join.concurrency,
            accepts_offers: false,
            pod: String::new(),
            progress_timeout_ms: 0,
        });
        let ending = Ending {
            gateway: gateway.clone(),
            view: view.clone(),
            attached,
        };
        gateway.tasks.spawn(BACKGROUND, "join_unknown", async move {
            ending.left().await;
        });
    }
    entered
}

/// Number of the first connection of a session.
const FIRST_ATTACH: u64 = 1;
/// Most deliveries a consumer may hold where neither it nor its group says.
const CAPACITY_DEFAULT: u32 = 1_000;

fn capacity(asked: Option<u32>, limit: u32) -> u32 {
    let limit = if limit == 0 { u32::MAX } else { limit };
    asked.unwrap_or(CAPACITY_DEFAULT).min(limit)
}

/// The leases among these tokens that are of this session.
fn own<'a>(attached: &'a Attached, tokens: &'a [String]) -> impl Iterator<Item = Lease> + 'a {
    tokens.iter().filter_map(|token| own_lease(attached, token))
}

fn own_lease(attached: &Attached, token: &str) -> Option<Lease> {
    let lease = token.parse::<Lease>().ok()?;
    let is_own = lease.session == attached.session && lease.consumer == attached.consumer;
    is_own.then_some(lease)
}

/// Keeps what the client still holds, gives back everything else that Redis says it holds, and
/// moves direct messages that waited for it; answers the tokens that are no longer its.
async fn resume(
    gateway: &Gateway,
    view: &GroupView,
    attached: &Attached,
    tokens: &[String],
) -> Result<Vec<String>, Fault> {
    let group = &view.definition.name;
    let lanes = gateway.catalog.read_lanes(&view.shard).await?;
    gateway
        .store
        .move_held(&view.shard, group, &attached.consumer, &lanes.all)
        .await?;
    let read = lanes.of_group(&view.shard, group);
    let mut claimed: HashSet<Lease> = own(attached, tokens).collect();
    let mut lost: Vec<String> = tokens
        .iter()
        .filter(|token| own_lease(attached, token).is_none())
        .cloned()
        .collect();
    let mut back = Vec::new();
    let mut kept = Vec::new();
    for pending in gateway
        .store
        .held_by(group, &read, &attached.consumer)
        .await?
    {
        let lease = pending.lease(&read, &attached.session, now_ms());
        let same = |other: &&Lease| {
            other.lane == lease.lane && other.id == lease.id && other.count == lease.count
        };
        match claimed.iter().find(same).cloned() {
            Some(claim) => {
                claimed.remove(&claim);
                kept.push(claim);
            },
            None => back.push(Settle {
                lease,
                attach: attached.attach,
                check_session: true,
                action: Action::GiveBack { idle_ms: 0 },
            }),
        }
    }
    lost.extend(claimed.into_iter().map(|lease| lease.token()));
    for batch in back.chunks(500) {
        let verdicts = gateway
            .store
            .settle(&view.shard, view.settling(&read), batch, now_ms())
            .await?;
        let taken = outcomes::taken(&verdicts);
        gateway.metrics.given_back_fenced.increment(taken);
    }
    let asked: Vec<(Lease, u64)> = kept
        .iter()
        .map(|lease| (lease.clone(), attached.attach))
        .collect();
    let verdicts = gateway
        .store
        .extend(&view.shard, group, &read, &asked)
        .await?;
    for (lease, verdict) in kept.into_iter().zip(verdicts) {
        if verdict == hive_store::settle::Verdict::Done {
            attached.hold_again(lease, view.definition.settings.lease_ms);
        } else {
            lost.push(lease.token());
        }
    }
    if !back.is_empty() {
        gateway.bells.announce(&gateway.store, &view.shard);
    }
    Ok(lost)
}
