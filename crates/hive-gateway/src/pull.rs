//! Fetch and Settle: agents without streams.
//!
//! A pull consumer is a member from its first fetch until five minutes after its last; only the
//! time of a lease takes work from it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_protocol::{
    fault::{Fault, Reason},
    outcome, request, time,
    wire::{self, SettleStatus},
};
use hive_store::{
    Lease, StoreError,
    fetch::{Fetch, Fetched, Taker},
    header::expiry_and_envelope,
    members::{Joined as Answer, Joining, Kind},
    settle::{Action, Settle, Verdict},
};
use parking_lot::Mutex;
use prost::Message as _;

use crate::{
    catalog::GroupView,
    core::{Gateway, now_ms},
    joining, outcomes,
};

/// How long a lost bell may delay an answer.
const POLL: Duration = Duration::from_secs(1);
/// Answers end at this size.
const ANSWER_BYTES_MAX: usize = hive_protocol::limits::BATCH_BYTES_MAX;
/// Most answers that are remembered for repeated requests; beyond it the oldest are forgotten.
const ANSWERS_MAX: usize = 1_000;
/// Most bytes of the remembered answers together.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Answers of fetches with a request id, until their leases end.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    by_request: Mutex<HashMap<String, (Instant, Arc<wire::FetchResponse>)>>,
}

impl Answers {
    fn get(&self, key: &str) -> Option<Arc<wire::FetchResponse>> {
        let held = self.by_request.lock();
        held.get(key)
            .filter(|(end, _)| *end > Instant::now())
            .map(|(_, answer)| answer.clone())
    }

    fn put(&self, key: String, end: Instant, answer: Arc<wire::FetchResponse>) {
        let mut held = self.by_request.lock();
        let bytes: usize = held.values().map(|(_, answer)| answer.encoded_len()).sum();
        if held.len() >= ANSWERS_MAX || bytes > ANSWERS_BYTES_MAX {
            let now = Instant::now();
            held.retain(|_, (end, _)| *end > now);
            while held.len() >= ANSWERS_MAX
                || held
                    .values()
                    .map(|(_, answer)| answer.encoded_len())
                    .sum::<usize>()
                    > ANSWERS_BYTES_MAX
            {
                let oldest = held.iter().min_by_key(|(_, (end, _))| *end);
                let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                    break;
                };
                held.remove(&key);
            }
        }
        held.insert(key, (end, answer));
    }
}

impl Gateway {
    /// Leases up to `max_messages` messages, waiting for the first.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, `GROUP_FULL`, `FENCED`, or what Redis says.
    pub async fn fetch(
        self: &Arc<Self>,
        namespace: &str,
        request: wire::FetchRequest,
    ) -> Result<wire::FetchResponse, Fault> {
        let fetch = request::fetch(&request)?;
        let _pass = self.enter("fetch")?;
        let view = self.catalog.group(namespace, &fetch.group).await?;
        let request_key = fetch
            .request_id
            .as_ref()
            .map(|id| format!("{namespace}/{}/{}/{id}", fetch.group, fetch.consumer_id));
        if let Some(answer) = request_key.as_deref().and_then(|key| self.answers.get(key)) {
            return Ok((*answer).clone());
        }
        let names = fetch.capabilities.names();
        let member = self.pull_member(&view, &fetch.consumer_id, names).await?;
        let bell = self.bells.listen(&view.shard);
        let end = Instant::now() + Duration::from_millis(fetch.wait_ms);
        loop {
            let answer = self.fetch_once(&view, &member, fetch.max_messages).await?;
            let now = Instant::now();
            if !answer.deliveries.is_empty() || now >= end || self.shutdown.is_draining() {
                if let Some(key) = request_key.filter(|_| !answer.deliveries.is_empty()) {
                    let lease = Duration::from_millis(view.definition.settings.lease_ms);
                    self.answers.put(key, now + lease, Arc::new(answer.clone()));
                }
                return Ok(answer);
            }
            let pause = POLL.min(end.saturating_duration_since(now));
            tokio::select! {
                () = bell.notified() => {},
                () = tokio::time::sleep(pause) => self.wake_due(&view).await,
                () = self.shutdown.draining() => {},
            }
        }
    }

    /// Makes sure that a pull consumer is a member; answers it as a taker.
    pub(crate) async fn pull_member(
        &self,
        view: &GroupView,
        consumer: &str,
        capabilities: &[String],
    ) -> Result<Taker, Fault> {
        let group = &view.definition.name;
        let session = joining::new_session();
        let joining = Joining {
            group,
            consumer,
            session: &session,
            resume: false,
            kind: Kind::Pull,
            gateway: "-",
            concurrency: 1,
            capabilities,
            max_consumers: view.definition.settings.max_consumers,
            lease_ms: view.definition.settings.lease_ms,
        };
        let answer = self.store.join(&view.shard, &joining).await?;
        let Answer::Member {
            session,
            attach,
            resumed,
        } = answer
        else {
            return Err(joining::refused(&answer, group, consumer));
        };
        if !resumed {
            let lanes = self.catalog.read_lanes(&view.shard).await?;
            self.store
                .move_held(&view.shard, group, consumer, &lanes.all)
                .await?;
        }
        Ok(Taker {
            consumer: consumer.to_owned(),
            session,
            attach,
            capabilities: capabilities.to_vec(),
        })
    }

    async fn fetch_once(
        &self,
        view: &GroupView,
        member: &Taker,
        max_messages: u32,
    ) -> Result<wire::FetchResponse, Fault> {
        let group = &view.definition.name;
        for _ in 0..3 {
            let lanes = self.catalog.lanes(&view.shard).await?;
            let read = lanes.of_group(&view.shard, group);
            let fetch = Fetch {
                group,
                gateway: &format!("{}/{}", self.incarnation, member.consumer),
                own_free: u64::from(max_messages),
                ageing_ms: view.ageing_ms(),
                group_limit: u64::from(view.definition.settings.max_in_flight),
                known_lanes: lanes.all.len(),
                lanes: &read,
                takers: std::slice::from_ref(member),
                slots: &[(0, max_messages)],
            };
            self.metrics.fetches_script.increment(1);
            let fetched = match self.store.fetch(&view.shard, &fetch).await {
                // What it leased may be lost on the way: give it back before the caller asks again.
                Err(error @ StoreError::Unknown { .. }) => return Err(error.into()),
                other => other?,
            };
            match fetched {
                Fetched::Taken { entries, .. } => {
                    let (answer, back) = render(view, &read, member, entries);
                    if !back.is_empty() {
                        let settling = view.settling(&read);
                        self.store
                            .settle(&view.shard, settling, &back, now_ms())
                            .await?;
                    }
                    self.metrics
                        .delivered
                        .increment(answer.deliveries.len() as u64);
                    return Ok(answer);
                },
                Fetched::LanesChanged => {
                    self.catalog.read_lanes(&view.shard).await?;
                },
                Fetched::Paused => {
                    return Ok(wire::FetchResponse {
                        deliveries: Vec::new(),
                    });
                },
                Fetched::Gone => return Err(Fault::no_group(group)),
            }
        }
        Ok(wire::FetchResponse {
            deliveries: Vec::new(),
        })
    }

    /// Settles a batch for clients without streams; each outcome is judged on its own.
    ///
    /// # Errors
    /// Violations of the call as a whole, `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn settle(
        self: &Arc<Self>,
        namespace: &str,
        request: wire::SettleRequest,
    ) -> Result<wire::SettleResponse, Fault> {
        hive_domain::name::check("group", &request.group)?;
        request::items("outcomes", request.outcomes.len())?;
        let _pass = self.enter("settle")?;
        let view = self.catalog.group(namespace, &request.group).await?;
        let mut results = Vec::with_capacity(request.outcomes.len());
        let mut items: Vec<(usize, Settle)> = Vec::new();
        let mut extends: Vec<(usize, Lease)> = Vec::new();
        for one in request.outcomes {
            let place = results.len();
            let mut result = wire::SettleResult {
                lease: one.lease.clone(),
                status: SettleStatus::Ok.into(),
                error: String::new(),
            };
            match (outcome::parse(one), result.lease.parse::<Lease>()) {
                (Err(violations), _) => {
                    result.status = SettleStatus::Invalid.into();
                    result.error = violations.to_string();
                    self.metrics.settled_invalid.increment(1);
                },
                (Ok(_), Err(error)) => {
                    result.status = SettleStatus::UnknownLease.into();
                    result.error = error.to_string();
                    self.metrics.settled_unknown.increment(1);
                },
                (
                    Ok(outcome::Outcome {
                        action: outcome::Action::Extend,
                        ..
                    }),
                    Ok(lease),
                ) => {
                    extends.push((place, lease));
                },
                (Ok(parsed), Ok(lease)) => {
                    items.push((place, outcomes::settle(&view, lease, 0, parsed.action)));
                },
            }
            results.push(result);
        }
        let (places, items): (Vec<usize>, Vec<Settle>) = items.into_iter().unzip();
        let mut verdicts: Vec<(usize, Verdict)> = Vec::new();
        if !items.is_empty() {
            let settler = self.settler(namespace, &request.group);
            verdicts.extend(places.into_iter().zip(settler.settle(items).await?));
        }
        if !extends.is_empty() {
            let lanes = self.catalog.lanes(&view.shard).await?;
            let lanes = lanes.of_group(&view.shard, &request.group);
            let (places, leases): (Vec<usize>, Vec<(Lease, u64)>) = extends
                .into_iter()
                .map(|(place, lease)| (place, (lease, 0)))
                .unzip();
            let extended = self
                .store
                .extend(&view.shard, &request.group, &lanes, &leases)
                .await?;
            verdicts.extend(places.into_iter().zip(extended));
        }
        for (place, verdict) in verdicts {
            outcomes::note(&self.metrics, verdict);
            if let Some(result) = results.get_mut(place) {
                outcomes::judge(result, verdict);
            }
        }
        Ok(wire::SettleResponse { results })
    }
}

/// Leased entries as deliveries, and what is not to be delivered.
fn render(
    view: &GroupView,
    lanes: &[hive_store::fetch::ReadLane],
    member: &Taker,
    entries: Vec<hive_store::fetch::Taken>,
) -> (wire::FetchResponse, Vec<Settle>) {
    let now = now_ms();
    let ends = time::to_timestamp(now.saturating_add(view.definition.settings.lease_ms).into());
    let mut deliveries: Vec<wire::Delivery> = Vec::new();
    let mut back = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let lease = Lease {
            lane: lanes
                .get(entry.lane)
                .map(|lane| lane.reference.clone())
                .unwrap_or_default(),
            id: entry.id,
            count: entry.count,
            consumer: member.consumer.clone(),
            session: member.session.clone(),
            delivered_ms: now,
        };
        let action = match expiry_and_envelope(&entry.body) {
            Ok((expires, _)) if expires > 0 && expires <= now => Some(Action::Expire),
            Ok((_, envelope)) => {
                let delivery = wire::Delivery {
                    lease: lease.to_string(),
                    attempt: entry.failures.saturating_add(1),
                    lease_expires_at: Some(ends),
                    message: envelope,
                };
                bytes += delivery.encoded_len();
                if bytes <= ANSWER_BYTES_MAX || deliveries.is_empty() {
                    deliveries.push(delivery);
                    None
                } else {
                    Some(Action::GiveBack { idle_ms: 0 })
                }
            },
            Err(error) => {
                tracing::error!(lane = lease.lane, id = lease.id, %error, "entry_undecodable");
                let (category, record) = ("parsing_error".to_owned(), bytes::Bytes::new());
                Some(Action::Reject { category, record })
            },
        };
        if let Some(action) = action {
            back.push(Settle {
                lease,
                attach: 0,
                check_session: true,
                action,
            });
        }
    }
    (wire::FetchResponse { deliveries }, back)
}

/// The fault of a call that names a consumer that is none.
pub(crate) fn no_consumer(group: &str, consumer: &str) -> Fault {
    Fault::new(
        Reason::ConsumerNotFound,
        format!("group `{group}` has no consumer `{consumer}`"),
    )
}
