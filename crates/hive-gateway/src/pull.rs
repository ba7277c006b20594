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
    request, wire,
};
use hive_runtime::tasks::BACKGROUND;
use hive_store::{
    fetch::{Fetch, Fetched, ReadLane, Taken, Taker},
    members::{Joined as Answer, Joining, Kind},
    settle::{Action, Settle},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::{
    attached::session_lost,
    catalog::GroupView,
    core::{Gateway, now_ms},
    delivery::{Deliveries, Fate, Holder},
    joining,
    outcomes::{self, Batch},
};

/// How long a lost bell may delay an answer.
const POLL: Duration = Duration::from_secs(1);
/// Answers end at this size.
const ANSWER_BYTES_MAX: usize = hive_protocol::limits::BATCH_BYTES_MAX;
/// Most answers that are remembered for repeated requests; beyond it the oldest are forgotten.
const ANSWERS_MAX: usize = 1_000;
/// Most bytes of the remembered answers together.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Answers of fetches with a request id, until their leases end, and whose turn it is to find one.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    by_request: Mutex<HashMap<String, (Instant, Arc<wire::FetchResponse>)>>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A fetch with a request id. Of those with one key one fetches at a time, and the others wait for
/// its answer: who asks again may be heard while nobody knows yet that its first line is dead.
#[derive(Debug)]
struct Flight<'a> {
    answers: &'a Answers,
    key: String,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Flight<'_> {
    fn answer(&self) -> Option<wire::FetchResponse> {
        self.answers.get(&self.key).map(|found| (*found).clone())
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut turns = self.answers.turns.lock();
        // The map's and this one.
        if Arc::strong_count(&self.turn) <= 2 {
            turns.remove(&self.key);
        }
    }
}

impl Answers {
    fn flight(&self, key: String) -> Flight<'_> {
        let turn = self.turns.lock().entry(key.clone()).or_default().clone();
        Flight {
            answers: self,
            key,
            turn,
        }
    }

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
    /// Leases up to `max_messages` messages, waiting for the first. It goes on by itself when the
    /// caller hangs up, until what was leased meanwhile is given back.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, `GROUP_FULL`, `FENCED`, or what Redis says.
    pub async fn fetch(
        self: &Arc<Self>,
        namespace: &str,
        request: wire::FetchRequest,
    ) -> Result<wire::FetchResponse, Fault> {
        let fetch = request::fetch(&request)?;
        let pass = self.enter("fetch")?;
        let view = self.catalog.group(namespace, &fetch.group).await?;
        let request_key = fetch
            .request_id
            .as_ref()
            .map(|id| format!("{namespace}/{}/{}/{id}", fetch.group, fetch.consumer_id));
        if let Some(answer) = request_key.as_deref().and_then(|key| self.answers.get(key)) {
            return Ok((*answer).clone());
        }
        let (mut caller, answer) = oneshot::channel();
        let gateway = self.clone();
        let end = Instant::now() + Duration::from_millis(fetch.wait_ms);
        self.tasks.spawn(BACKGROUND, "fetch", async move {
            let flight = request_key.map(|key| gateway.answers.flight(key));
            let turn = async {
                match &flight {
                    Some(flight) => Some(flight.turn.lock().await),
                    None => None,
                }
            };
            // The other one may wait for longer than this one only where its request was another.
            let _turn = tokio::select! {
                biased;
                turn = turn => turn,
                () = caller.closed() => return,
            };
            if let Some(answer) = flight.as_ref().and_then(Flight::answer) {
                drop(caller.send(Ok(answer)));
                return;
            }
            let fetched = gateway.fetch_for(&view, fetch, end, &mut caller).await;
            if let Ok(found) = &fetched
                && !found.deliveries.is_empty()
                && let Some(flight) = &flight
            {
                // Who asks again gets it, whether it was heard or not.
                let lease = Duration::from_millis(view.definition.settings.lease_ms);
                let found = Arc::new(found.clone());
                let key = flight.key.clone();
                gateway.answers.put(key, Instant::now() + lease, found);
                drop(caller.send(fetched));
            } else if let Err(Ok(unheard)) = caller.send(fetched) {
                gateway.give_back_unheard(&view, unheard).await;
            }
            drop(pass);
        });
        let stopped = |_stopped| Fault::new(Reason::Draining, "this gateway is going away");
        answer.await.map_err(stopped)?
    }

    async fn fetch_for(
        self: &Arc<Self>,
        view: &GroupView,
        fetch: request::Fetch,
        end: Instant,
        caller: &mut oneshot::Sender<Result<wire::FetchResponse, Fault>>,
    ) -> Result<wire::FetchResponse, Fault> {
        let names = fetch.capabilities.names();
        let member = self.pull_member(view, &fetch.consumer_id, names).await?;
        let bell = self.bells.listen(&view.shard);
        let mut next_due = Instant::now();
        loop {
            // First, and however often the bell rings: retries need no coordinator.
            if next_due <= Instant::now() {
                next_due = Instant::now() + POLL;
                self.wake_due(view).await;
            }
            let answer = self.fetch_once(view, &member, fetch.max_messages).await?;
            let now = Instant::now();
            let is_over = now >= end || self.shutdown.is_draining() || caller.is_closed();
            if !answer.deliveries.is_empty() || is_over {
                return Ok(answer);
            }
            let pause = POLL.min(end.saturating_duration_since(now));
            tokio::select! {
                () = bell.notified() => {},
                () = tokio::time::sleep(pause) => {},
                () = self.shutdown.draining() => {},
                () = caller.closed() => {},
            }
        }
    }

    /// Gives back, uncounted, what was leased for a caller who hung up.
    async fn give_back_unheard(self: &Arc<Self>, view: &GroupView, unheard: wire::FetchResponse) {
        let back: Vec<Settle> = unheard
            .deliveries
            .iter()
            .filter_map(|delivery| {
                Some(Settle {
                    lease: delivery.lease.parse().ok()?,
                    attach: 0,
                    check_session: true,
                    action: Action::GiveBack { idle_ms: 0 },
                })
            })
            .collect();
        if back.is_empty() {
            return;
        }
        let group = &view.definition.name;
        let count = back.len() as u64;
        match self.settler(&view.namespace, group).settle(back).await {
            Ok(verdicts) => {
                let taken = outcomes::taken(&verdicts);
                self.metrics.given_back_reply.increment(taken);
            },
            // They end with their leases.
            Err(error) => tracing::warn!(group, count, %error, "give_back_failed"),
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
            resume: None,
            kind: Kind::Pull,
            gateway: "-",
            concurrency: 1,
            capabilities,
            max_consumers: view.definition.settings.max_consumers,
            lease_ms: view.definition.settings.lease_ms,
            pod: "",
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
            consumer: consumer.into(),
            session: session.into(),
            attach,
            capabilities: capabilities.into(),
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
                hold_ms: view.affinity_wait_ms(),
                known_lanes: lanes.all.len(),
                lanes: &read,
                takers: std::slice::from_ref(member),
                slots: &[(0, max_messages)],
            };
            self.metrics.fetches_script.increment(1);
            // Where the answer is lost, what it leased stays this consumer's until the lease ends:
            // what else it holds cannot be told apart from here.
            match self.store.fetch(&view.shard, &fetch).await? {
                Fetched::Taken { fenced, .. } if !fenced.is_empty() => {
                    return Err(Fault::new(
                        Reason::Fenced,
                        format!(
                            "consumer `{}` was taken over while it waited",
                            member.consumer
                        ),
                    ));
                },
                Fetched::Taken { detached, .. } if !detached.is_empty() => {
                    return Err(session_lost(&member.consumer));
                },
                Fetched::Taken { entries, .. } => {
                    let now = self.store.now_ms();
                    let (answer, back) = render((view, now), &read, member, entries);
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
        let batch = Batch::check(&self.metrics, &view, None, request.outcomes);
        let results = batch.judge(self, &view, None).await?;
        Ok(wire::SettleResponse { results })
    }
}

/// Leased entries as deliveries, and what is not to be delivered.
fn render(
    (view, now): (&GroupView, u64),
    lanes: &[ReadLane],
    member: &Taker,
    entries: Vec<Taken>,
) -> (wire::FetchResponse, Vec<Settle>) {
    let fates = Deliveries::new(view, lanes, now);
    let holder = Holder::from(member);
    let mut deliveries: Vec<wire::Delivery> = Vec::new();
    let mut back = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        match fates.fate(entry, holder) {
            Fate::Deliver(lease, delivery) => {
                bytes += delivery.encoded_len();
                if bytes <= ANSWER_BYTES_MAX || deliveries.is_empty() {
                    deliveries.push(delivery);
                } else {
                    back.push(holder.settle(lease, Action::GiveBack { idle_ms: 0 }));
                }
            },
            Fate::End(settle) => back.push(settle),
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
