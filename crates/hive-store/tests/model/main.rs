//! Random operations on the model and on a real Redis by the typed calls: each answer and, after
//! each operation, all state must be the same.
//!
//! `HIVE_SEED` replays a run; the operations of a failing one are printed.

mod model;
#[path = "../scripts/world.rs"]
#[expect(dead_code, reason = "the tables use more of it")]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hive_domain::group::Start;
use hive_store::{
    Lease, StoreError,
    fetch::{Fetch, Fetched, Taker},
    keys::GroupKey,
    lease::{parse_entry_id, size_of_body},
    members::{Joined, Leaving},
    publish::{Flushed, Outcome},
    settle::{Action, Settle, SettleGroup, Verdict},
    sweep::Take,
};
use hive_testkit::rng::seeded;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    model::{Group, MAX_ATTEMPTS, Message, Place, Totals},
    world::{World, id_of, item, lane_ref, lose, nack, ordered, reject},
};

const GROUPS: [&str; 2] = ["g", "h"];
/// The group where a dead message blocks its key.
const BLOCKS: &str = "g";
const LANES: [&str; 5] = ["g/p0", "/p4", "g/p5m", "/p9m", "h/p2m"];
const CONSUMERS: [&str; 4] = ["c0", "c1", "c2", "c3"];
/// Operations of one world, and how long worlds are tried.
const STEPS: u64 = 120;
const BUDGET: Duration = Duration::from_secs(10);

fn reads(group: &str, lane: &str) -> bool {
    lane.starts_with('/') || lane.starts_with(&format!("{group}/"))
}

struct Run {
    world: World,
    rng: StdRng,
    messages: Vec<Message>,
    groups: BTreeMap<&'static str, Group>,
    /// Every lease that was ever given out, stale ones too.
    leases: Vec<(&'static str, usize, Lease, u64)>,
    sessions: u64,
    /// (group, consumer, session, attach) that once were a member's.
    former: Vec<(&'static str, String, String, u64)>,
    /// Whether settled messages are kept.
    keep: bool,
    log: Vec<String>,
}

impl Drop for Run {
    #[expect(clippy::print_stderr, reason = "what led to a failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.log {
                eprintln!("{line}");
            }
        }
    }
}

impl Run {
    async fn new(seed: u64) -> Self {
        let world = world::world().await;
        for group in GROUPS {
            world.create(group, Start::Earliest).await;
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let keep = rng.random_bool(0.5);
        Self {
            world,
            rng,
            keep,
            messages: Vec::new(),
            groups: GROUPS
                .map(|group| (group, Group::new(group == BLOCKS)))
                .into(),
            leases: Vec::new(),
            sessions: 0,
            former: Vec::new(),
            log: Vec::new(),
        }
    }

    fn group(&mut self) -> &'static str {
        GROUPS.choose(&mut self.rng).expect("a group")
    }

    fn model(&mut self, group: &str) -> &mut Group {
        self.groups.get_mut(group).expect("a group")
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..25 => self.publish().await,
            25..50 => self.fetch().await,
            50..75 => self.settle().await,
            75..79 => self.recover().await,
            79..82 => self.extend().await,
            82..89 => self.join().await,
            89..91 => self.leave().await,
            91..93 => self.fail().await,
            93..94 => {
                let group = self.group();
                let key = format!("k{}", self.rng.random_range(0..3));
                self.unblock(group, &key).await;
            },
            94..97 => {
                let group = self.group();
                self.log.push(format!("end backoffs of {group}"));
                self.world.end_backoffs_as(group, 0).await;
                self.model(group).end_backoffs();
            },
            _ => self.purge().await,
        }
    }

    async fn publish(&mut self) {
        let mut items = Vec::new();
        let mut added = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            let lane = *LANES.choose(&mut self.rng).expect("a lane");
            let name = format!("m{}", self.messages.len() + added.len());
            let key = if lane.ends_with('m') && self.rng.random_bool(0.9) {
                format!("k{}", self.rng.random_range(0..3))
            } else {
                String::new()
            };
            self.log
                .push(format!("publish {name} to {lane} with key `{key}`"));
            items.push(if key.is_empty() {
                item(lane, &name)
            } else {
                ordered(lane, &name, &key)
            });
            added.push((lane, name, key));
        }
        let flush = self.world.flush(items).await;
        let all_added = Flushed::Done(vec![Outcome::Added; added.len()]);
        for _ in 0..self.rng.random_range(1..3) {
            assert_eq!(self.world.send(&flush).await, all_added);
        }
        let mut before = BTreeMap::new();
        for (lane, name, key) in added {
            let stream = self.world.shard.lane(&lane_ref(lane));
            let entries: Vec<(String, Vec<Vec<u8>>)> =
                self.world.redis(&["XRANGE", &stream, "-", "+"]).await;
            let body_of = |fields: &[Vec<u8>]| Bytes::from(fields[1].clone());
            let (id, fields) = entries
                .iter()
                .find(|(_, fields)| id_of(&body_of(fields)) == name)
                .expect("the message in its lane");
            let last = parse_entry_id(id);
            assert!(
                before.insert(lane, last) < Some(last),
                "the order of a lane"
            );
            let number = self.messages.len();
            self.messages.push(Message {
                lane,
                id: id.clone(),
                name,
                key,
                bytes: fields[1].len() as u64,
            });
            for group in GROUPS.into_iter().filter(|group| reads(group, lane)) {
                self.model(group).publish(number);
            }
        }
    }

    async fn join(&mut self) {
        let group = self.group();
        let consumer = *CONSUMERS.choose(&mut self.rng).expect("a consumer");
        let held = self.model(group).members.get(consumer).cloned();
        let resume = held.is_some() && self.rng.random_bool(0.5);
        self.sessions += 1;
        let minted = format!("s{}", self.sessions);
        let session = held
            .as_ref()
            .filter(|_| resume)
            .map_or(&minted, |(held, _)| held)
            .clone();
        self.log.push(format!(
            "{consumer} joins {group} as {session}, resume {resume}"
        ));
        let mut joining = World::joining(group, consumer, &session);
        joining.resume = resume.then_some("unused");
        let attach = held.filter(|_| resume).map_or(1, |(_, attach)| attach + 1);
        if let Some((session, attach)) = self.model(group).members.get(consumer).cloned() {
            self.former.push((group, consumer.into(), session, attach));
        }
        let expected = Joined::Member {
            session: session.clone(),
            attach,
            resumed: resume,
        };
        assert_eq!(self.world.joined(&joining).await, expected);
        self.model(group)
            .members
            .insert(consumer.into(), (session, attach));
    }

    /// Leaves, or is asked to by a connection that may be an old one.
    async fn leave(&mut self) {
        let group = self.group();
        let consumer = *CONSUMERS.choose(&mut self.rng).expect("a consumer");
        let held = self.model(group).members.get(consumer).cloned();
        let mut who = held.clone().unwrap_or_else(|| ("*".into(), 0));
        let former: Vec<_> = self
            .former
            .iter()
            .filter(|f| f.0 == group && f.1 == consumer)
            .collect();
        if let Some(former) = former.choose(&mut self.rng).filter(|_| who.1 % 2 == 1) {
            who = (former.2.clone(), former.3);
        }
        self.log
            .push(format!("{consumer} leaves {group} as {who:?}"));
        let expected = match &held {
            None => Leaving::Absent,
            Some(_) if self.model(group).is_fresh(consumer, &who.0, who.1) => Leaving::Done,
            Some(_) => Leaving::Fenced,
        };
        let lanes = self.world.lanes(group).await;
        let who = (consumer, who.0.as_str(), who.1);
        let left = self
            .world
            .store
            .leave(&self.world.shard, group, &lanes, who)
            .await;
        assert_eq!(left.expect("leave"), expected);
        if expected == Leaving::Done {
            self.model(group).members.remove(consumer);
        }
    }

    /// All members of a group, and up to two connections that are not any more.
    fn takers(&self, group: &str) -> Vec<Taker> {
        let members = self.groups[group].members.iter();
        let members = members.map(|(consumer, (session, attach))| (consumer, session, attach));
        let former = self
            .former
            .iter()
            .rev()
            .filter(|former| former.0 == group)
            .take(2);
        let former = former.map(|(_, consumer, session, attach)| (consumer, session, attach));
        members
            .chain(former)
            .map(|(consumer, session, attach)| Taker {
                consumer: consumer.as_str().into(),
                session: session.as_str().into(),
                attach: *attach,
                capabilities: Arc::default(),
            })
            .collect()
    }

    async fn fetch(&mut self) {
        let group = self.group();
        let gateway = if self.rng.random_bool(0.5) {
            "gw0"
        } else {
            "gw1"
        };
        let takers = self.takers(group);
        let model = &self.groups[group];
        let is_fresh =
            |taker: &Taker| model.is_fresh(&taker.consumer, &taker.session, taker.attach);
        let (detached_takers, fenced_takers): (Vec<usize>, Vec<usize>) = (0..takers.len())
            .filter(|taker| !is_fresh(&takers[*taker]))
            .partition(|at| !model.is_fenced(&takers[*at].consumer, &takers[*at].session));
        let slots: Vec<(usize, u32)> = (0..takers.len())
            .map(|taker| (taker, self.rng.random_range(1..4)))
            .collect();
        let named: Vec<(String, u64)> = slots
            .iter()
            .map(|(taker, count)| {
                let count = if !is_fresh(&takers[*taker]) {
                    0
                } else {
                    u64::from(*count)
                };
                (takers[*taker].consumer.to_string(), count)
            })
            .collect();
        self.log
            .push(format!("{gateway} fetches {group}: {named:?}"));
        let (lanes, all) = self
            .world
            .store
            .read_lanes(&self.world.shard, group)
            .await
            .expect("lanes");
        let fetch = Fetch {
            group,
            gateway,
            own_free: named.iter().map(|(_, count)| count).sum(),
            ageing_ms: 0,
            group_limit: 0,
            hold_ms: 0,
            known_lanes: all.all.len(),
            lanes: &lanes,
            takers: &takers,
            slots: &slots,
        };
        let fetched = self
            .world
            .store
            .fetch(&self.world.shard, &fetch)
            .await
            .expect("fetch");
        let Fetched::Taken {
            entries,
            fenced,
            detached,
            ..
        } = fetched
        else {
            panic!("{fetched:?}");
        };
        assert_eq!((fenced, detached), (fenced_takers, detached_takers));
        let messages = std::mem::take(&mut self.messages);
        let expected = self.model(group).fetch(&messages, gateway, &named);
        self.messages = messages;
        let told: Vec<(usize, String, u64, u32)> = entries
            .iter()
            .map(|taken| (taken.taker, id_of(&taken.body), taken.count, taken.failures))
            .collect();
        let wanted: Vec<(usize, String, u64, u32)> = expected
            .iter()
            .map(|e| {
                (
                    e.slot,
                    self.messages[e.message].name.clone(),
                    e.count,
                    e.failures,
                )
            })
            .collect();
        assert_eq!(told, wanted);
        for (taken, expected) in entries.iter().zip(&expected) {
            let taker = &takers[taken.taker];
            let lease = Lease {
                lane: lanes[taken.lane].reference.clone(),
                id: taken.id.clone(),
                count: taken.count,
                consumer: taker.consumer.clone(),
                session: taker.session.clone(),
                delivered_ms: 0,
                bytes: size_of_body(&taken.body),
            };
            self.leases
                .push((group, expected.message, lease, taker.attach));
        }
    }

    fn action(&mut self) -> Action {
        match self.rng.random_range(0..10) {
            0..5 => Action::Ack,
            5 => nack(Some(0)),
            6 => nack(None),
            7 => reject(),
            8 => Action::Expire,
            _ => Action::Release {
                retry_after_ms: if self.rng.random_bool(0.5) { 0 } else { 60_000 },
            },
        }
    }

    /// A batch of outcomes for leases of any age, some twice.
    async fn settle(&mut self) {
        let group = self.group();
        let mine: Vec<_> = self
            .leases
            .iter()
            .filter(|l| l.0 == group)
            .cloned()
            .collect();
        let newest = mine.len().saturating_sub(12);
        let mut items = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            let from = if self.rng.random_bool(0.8) { newest } else { 0 };
            let Some((_, message, lease, attach)) = mine[from..].choose(&mut self.rng).cloned()
            else {
                return;
            };
            let attach = if self.rng.random_bool(0.5) { attach } else { 0 };
            let action = self.action();
            items.push((
                message,
                Settle {
                    lease,
                    attach,
                    check_session: true,
                    action,
                },
            ));
        }
        self.settle_items(group, items).await;
    }

    /// Plain first acks go in one script before all others, by lane, consumer and connection.
    async fn settle_items(&mut self, group: &'static str, items: Vec<(usize, Settle)>) {
        for (message, settle) in &items {
            let name = &self.messages[*message].name;
            self.log.push(format!("settle {group} {name}: {settle:?}"));
        }
        let is_plain = |settle: &Settle| {
            settle.action == Action::Ack
                && settle.lease.count == 1
                && settle.lease.bytes > 0
                && !settle.lease.lane.ends_with('m')
        };
        let mut order: Vec<usize> = (0..items.len()).collect();
        let section = |position: &usize| {
            let of = |at: &usize| {
                let settle = &items[*at].1;
                let lease = &settle.lease;
                (&lease.lane, &lease.consumer, &lease.session, settle.attach)
            };
            (0..items.len())
                .find(|first| is_plain(&items[*first].1) && of(first) == of(position))
                .filter(|_| is_plain(&items[*position].1))
                .unwrap_or(usize::MAX)
        };
        order.sort_by_key(section);
        let mut expected = vec![Verdict::Unknown; items.len()];
        let messages = std::mem::take(&mut self.messages);
        for position in order {
            let (message, settle) = &items[position];
            let lease = &settle.lease;
            let model = self.model(group);
            let is_fresh = !settle.check_session
                || model.is_fresh(&lease.consumer, &lease.session, settle.attach);
            let by = (&*lease.consumer, lease.count, is_fresh);
            expected[position] = model.settle(&messages, *message, by, &settle.action);
        }
        self.messages = messages;
        let settles: Vec<Settle> = items.into_iter().map(|(_, settle)| settle).collect();
        let lanes = self.world.lanes(group).await;
        let keep = self.keep;
        let verdicts = self
            .world
            .settle_with(group, &lanes, &settles, |settings| {
                settings.keep = keep;
                settings.block = group == BLOCKS;
                settings.ageing_ms = 0;
                settings.max_attempts = MAX_ATTEMPTS;
                settings.initial_backoff_ms = 60_000;
            })
            .await;
        assert_eq!(verdicts, expected);
    }

    async fn unblock(&mut self, group: &'static str, key: &str) {
        self.log.push(format!("unblock {key} of {group}"));
        let (store, shard) = (&self.world.store, &self.world.shard);
        let let_go = store.unblock_key(shard, (group, 0), key).await;
        let messages = std::mem::take(&mut self.messages);
        let expected = self.model(group).unblock(&messages, key);
        self.messages = messages;
        assert_eq!(let_go.expect("unblock"), expected);
    }

    /// What a sweep and a purge do: they act on whoever owns an entry.
    async fn recover(&mut self) {
        let group = self.group();
        let pending: Vec<(usize, String, u64)> = self.groups[group]
            .seats
            .iter()
            .filter_map(|(m, seat)| Some((*m, self.groups[group].owner(*m)?, seat.count)))
            .collect();
        let Some((message, owner, count)) = pending.choose(&mut self.rng).cloned() else {
            return;
        };
        let action = if owner.starts_with('~') {
            Action::Cancel
        } else {
            let idle_ms = if self.rng.random_bool(0.2) {
                3_600_000
            } else {
                0
            };
            match self.rng.random_range(0..2) {
                0 => lose(idle_ms),
                _ => Action::GiveBack { idle_ms },
            }
        };
        let lease = Lease {
            lane: self.messages[message].lane.into(),
            id: self.messages[message].id.clone(),
            count,
            consumer: owner.into(),
            session: "*".into(),
            delivered_ms: 0,
            bytes: 0,
        };
        let settle = Settle {
            lease,
            attach: 0,
            check_session: false,
            action,
        };
        self.settle_items(group, vec![(message, settle)]).await;
    }

    async fn extend(&mut self) {
        let Some((group, message, lease, attach)) = self.leases.choose(&mut self.rng).cloned()
        else {
            return;
        };
        self.log.push(format!("extend {group} {lease:?}"));
        let lanes = self.world.lanes(group).await;
        let verdicts = self
            .world
            .store
            .extend(&self.world.shard, group, &lanes, &[(lease.clone(), attach)])
            .await;
        let model = self.model(group);
        let expected = match model.owner(message) {
            _ if model.is_fenced(&lease.consumer, &lease.session) => Verdict::Fenced,
            _ if !model.is_fresh(&lease.consumer, &lease.session, attach) => Verdict::Detached,
            None => Verdict::Gone,
            Some(owner)
                if *owner == *lease.consumer && model.seats[&message].count == lease.count =>
            {
                Verdict::Done
            },
            Some(_) => Verdict::Stale,
        };
        assert_eq!(verdicts.expect("extend"), [expected]);
    }

    async fn purge(&mut self) {
        let group = self.group();
        let lanes = self.world.lanes(group).await;
        let Some(lane) = lanes.choose(&mut self.rng).cloned() else {
            return;
        };
        self.log.push(format!("purge {group} {}", lane.reference));
        let taken = self
            .world
            .store
            .take_waiting(&self.world.shard, group, &lane, Take::All, 2)
            .await;
        let taken = taken.expect("take");
        let messages = std::mem::take(&mut self.messages);
        let expected = self.model(group).purge(&messages, &lane.reference, 2);
        let named: Vec<&String> = expected.iter().map(|m| &messages[*m].id).collect();
        assert_eq!(taken.iter().collect::<Vec<_>>(), named);
        self.messages = messages;
        let cancels: Vec<Settle> = taken
            .iter()
            .map(|id| Settle {
                lease: Lease {
                    lane: lane.reference.clone(),
                    id: id.clone(),
                    count: 1,
                    consumer: "~taken".into(),
                    session: "*".into(),
                    delivered_ms: 0,
                    bytes: 0,
                },
                attach: 0,
                check_session: false,
                action: Action::Cancel,
            })
            .collect();
        let keep = self.keep;
        let change = |settings: &mut SettleGroup<'_>| settings.keep = keep;
        let verdicts = self
            .world
            .settle_with(group, &lanes, &cancels, change)
            .await;
        assert!(
            verdicts.iter().all(|verdict| *verdict == Verdict::Dead),
            "{verdicts:?}"
        );
    }

    /// Redis refuses an operation, or finds a key to be what it must not be: the script ends before
    /// it has written, and the comparison behind the step finds nothing changed. Spoiled are the
    /// keys that a decision is read from; those that are written alone are not looked at before.
    async fn fail(&mut self) {
        let group = self.group();
        let of_group = |key| self.world.key(group, key);
        let (counters, members) = (of_group(GroupKey::Counters), of_group(GroupKey::Members));
        let (groups, lanes) = (self.world.shard.groups(), self.world.shard.lanes());
        let served = of_group(GroupKey::Served);
        let operation = self.rng.random_range(0..3);
        let spoilable: &[String] = match operation {
            0 => &[groups, lanes, counters],
            1 => &[groups, lanes, served, members],
            _ => &[counters],
        };
        let spoiled = spoilable.choose(&mut self.rng);
        let spoiled = spoiled.filter(|_| self.rng.random_bool(0.5)).cloned();
        self.log.push(format!(
            "operation {operation} on {group} fails by {spoiled:?}"
        ));
        let lane = format!("{group}/p{}", if group == "g" { "0" } else { "2m" });
        let flush = self.world.flush(vec![item(&lane, "refused")]).await;
        let (read, all) = self
            .world
            .store
            .read_lanes(&self.world.shard, group)
            .await
            .expect("lanes");
        let takers = self.takers(group);
        let slots: Vec<(usize, u32)> = (0..takers.len()).map(|taker| (taker, 1)).collect();
        let mut mine = self.leases.iter().filter(|lease| lease.0 == group);
        let settle = mine.next_back().map(|(_, _, lease, attach)| Settle {
            lease: lease.clone(),
            attach: *attach,
            check_session: true,
            action: Action::Ack,
        });
        let can_fail = match operation {
            0 => true,
            // Without a lane or a consumer there is nothing to read of it.
            1 => !takers.is_empty() && !read.is_empty(),
            _ => settle.is_some(),
        };
        if !can_fail {
            return;
        }
        self.spoil(spoiled.as_deref()).await;
        // It waits for replicas that may come: not for long.
        let store = world::open_waiting(&self.world.server, Duration::from_millis(50));
        let (shard, wrong) = (&self.world.shard, spoiled.is_some());
        let error = match operation {
            0 => store.publish(shard, &flush).await.err(),
            1 => {
                let fetch = Fetch {
                    group,
                    gateway: "gw0",
                    own_free: slots.len() as u64,
                    ageing_ms: 0,
                    group_limit: 0,
                    hold_ms: 0,
                    known_lanes: all.all.len(),
                    lanes: &read,
                    takers: &takers,
                    slots: &slots,
                };
                store.fetch(shard, &fetch).await.err()
            },
            _ => {
                let settling = world::settling(group, &read, self.keep);
                let one = settle.as_slice();
                store.settle(shard, settling, one, 0).await.err()
            },
        };
        self.restore(spoiled.as_deref()).await;
        let error = error.expect("an error");
        let is_refused = matches!(error, StoreError::Refused { .. });
        assert_eq!(is_refused, wrong, "{error:?}");
    }

    async fn spoil(&self, key: Option<&str>) {
        let world = &self.world;
        let Some(key) = key else {
            let _: String = world
                .redis(&["CONFIG", "SET", "min-replicas-to-write", "1"])
                .await;
            return;
        };
        let is_there: bool = world.redis(&["EXISTS", key]).await;
        if is_there {
            let _: String = world.redis(&["RENAME", key, &format!("{key}:aside")]).await;
        }
        let _: String = world.redis(&["SET", key, "spoiled"]).await;
    }

    async fn restore(&self, key: Option<&str>) {
        let world = &self.world;
        let Some(key) = key else {
            let _: String = world
                .redis(&["CONFIG", "SET", "min-replicas-to-write", "0"])
                .await;
            return;
        };
        let _: i64 = world.redis(&["DEL", key]).await;
        let aside = format!("{key}:aside");
        let was_there: bool = world.redis(&["EXISTS", &aside]).await;
        if was_there {
            let _: String = world.redis(&["RENAME", &aside, key]).await;
        }
    }

    /// All state in Redis is what the model says.
    async fn compare(&mut self) {
        for group in GROUPS {
            let model = &self.groups[group];
            let lanes = self.world.lanes(group).await;
            let mut pending = BTreeSet::new();
            for number in 0..lanes.len() {
                let page = self
                    .world
                    .store
                    .pending(group, &lanes, number, ("-", 1_000), None);
                for held in page.await.expect("pending") {
                    let member = format!("{}|{}", lanes[number].reference, held.id);
                    pending.insert((member, held.owner, held.count));
                }
            }
            let expected: BTreeSet<_> = model
                .seats
                .iter()
                .filter_map(|(m, seat)| {
                    Some((self.messages[*m].member(), model.owner(*m)?, seat.count))
                })
                .collect();
            assert_eq!(pending, expected, "owners in `{group}`");
            for (key, place) in [
                (self.world.shard.ready(group, ""), Place::Ready),
                (self.world.key(group, GroupKey::Delayed), Place::Delayed),
                (self.world.key(group, GroupKey::Parked), Place::Parked),
            ] {
                let members: Vec<String> = self.world.redis(&["ZRANGE", &key, "0", "-1"]).await;
                let members: BTreeSet<&str> = members
                    .iter()
                    .map(|m| m.rsplit('\0').next().unwrap_or_default())
                    .collect();
                let expected: Vec<String> = model
                    .at(&place)
                    .iter()
                    .map(|m| self.messages[*m].member())
                    .collect();
                let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
                assert_eq!(members, expected, "{place:?} of `{group}`");
            }
            let key = self.world.key(group, GroupKey::Busy);
            let busy: BTreeMap<String, String> = self.world.redis(&["HGETALL", &key]).await;
            let expected: BTreeMap<String, String> = model
                .busy
                .iter()
                .map(|(key, m)| {
                    let blocks = if model.blocked.contains(key) { "!" } else { "" };
                    let member = self.messages[*m].member();
                    (key.clone(), format!("{blocks}{member}"))
                })
                .collect();
            assert_eq!(busy, expected, "keys in flight of `{group}`");
            let key = self.world.key(group, GroupKey::Failures);
            let failed: Vec<String> = self.world.redis(&["HKEYS", &key]).await;
            let expected = model.seats.iter().filter(|(_, seat)| seat.failures > 0);
            let expected: BTreeSet<String> =
                expected.map(|(m, _)| self.messages[*m].member()).collect();
            assert_eq!(failed.into_iter().collect::<BTreeSet<_>>(), expected);
            let figures = self.world.figures(group).await;
            let totals = Totals {
                published: figures.published,
                settled: figures.settled,
                acked: figures.acked,
                failed: figures.failed,
                released: figures.released,
                dead: figures.dead,
                redelivered: figures.redelivered,
            };
            assert_eq!(totals, model.totals, "totals of `{group}`");
            assert_eq!(figures.waiting, model.at(&Place::Waiting).len() as u64);
            assert_eq!(figures.pending, pending.len() as u64);
            assert_eq!(figures.blocked_keys, model.blocked.len() as u64);
            let unsettled = model.seats.iter();
            let unsettled = unsettled.filter(|(_, seat)| seat.place != Place::Settled);
            let bytes: u64 = unsettled.map(|(m, _)| self.messages[*m].bytes).sum();
            assert_eq!(figures.unsettled_bytes, bytes, "bytes of `{group}`");
        }
        self.compare_lanes().await;
        let dead = self
            .world
            .store
            .dead_count(&self.world.shard)
            .await
            .expect("dead");
        assert_eq!(
            dead,
            self.groups
                .values()
                .map(|group| group.totals.dead)
                .sum::<u64>()
        );
    }

    /// Each lane holds what is kept of it, and that many bytes.
    async fn compare_lanes(&self) {
        let counted = self.world.store.bytes_by_lane(&self.world.shard).await;
        let counted = counted.expect("sizes");
        for lane in LANES {
            let key = self.world.shard.lane(&lane_ref(lane));
            let entries: Vec<(String, Vec<Vec<u8>>)> =
                self.world.redis(&["XRANGE", &key, "-", "+"]).await;
            let is_kept = |number: &usize| {
                let readers: Vec<_> = GROUPS.iter().filter(|group| reads(group, lane)).collect();
                self.keep
                    || readers.len() > 1
                    || self.groups[*readers[0]].seats[number].place != Place::Settled
            };
            let kept: Vec<&Message> = (0..self.messages.len())
                .filter(|number| self.messages[*number].lane == lane)
                .filter(is_kept)
                .map(|number| &self.messages[number])
                .collect();
            let ids: Vec<&String> = entries.iter().map(|(id, _)| id).collect();
            assert_eq!(
                ids,
                kept.iter().map(|m| &m.id).collect::<Vec<_>>(),
                "{lane}"
            );
            let bytes: u64 = kept.iter().map(|message| message.bytes).sum();
            assert_eq!(
                counted.get(lane).copied().unwrap_or(0),
                bytes,
                "bytes of {lane}"
            );
        }
    }

    /// Works everything off: nothing is left anywhere.
    async fn drain(&mut self) {
        for group in GROUPS {
            let joining = World::joining(group, "last", "last");
            self.world.joined(&joining).await;
            self.model(group).members.clear();
            self.model(group)
                .members
                .insert("last".into(), ("last".into(), 1));
            for consumer in CONSUMERS {
                let lanes = self.world.lanes(group).await;
                let who = (consumer, "*", 0);
                let left = self
                    .world
                    .store
                    .leave(&self.world.shard, group, &lanes, who)
                    .await;
                left.expect("leave");
            }
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while self
            .groups
            .values()
            .any(|group| group.totals.published > group.totals.settled)
        {
            assert!(Instant::now() < deadline, "it does not drain");
            for group in GROUPS {
                self.world.end_backoffs_as(group, 0).await;
                self.model(group).end_backoffs();
                for key in self.groups[group].blocked.clone() {
                    self.unblock(group, &key).await;
                }
                let owners = CONSUMERS.iter().map(|c| Place::Leased((*c).into()));
                let stuck: Vec<usize> = owners.flat_map(|p| self.groups[group].at(&p)).collect();
                for message in stuck {
                    self.give_back(group, message).await;
                }
            }
            self.fetch().await;
            let held = std::mem::take(&mut self.leases);
            for (group, message, lease, attach) in held {
                let settle = Settle {
                    lease,
                    attach,
                    check_session: true,
                    action: Action::Ack,
                };
                self.settle_items(group, vec![(message, settle)]).await;
            }
        }
        self.compare().await;
    }

    async fn give_back(&mut self, group: &'static str, message: usize) {
        let lease = Lease {
            lane: self.messages[message].lane.into(),
            id: self.messages[message].id.clone(),
            count: self.groups[group].seats[&message].count,
            consumer: self.groups[group].owner(message).expect("an owner").into(),
            session: "*".into(),
            delivered_ms: 0,
            bytes: 0,
        };
        let action = Action::GiveBack { idle_ms: 0 };
        let settle = Settle {
            lease,
            attach: 0,
            check_session: false,
            action,
        };
        self.settle_items(group, vec![(message, settle)]).await;
    }
}

#[tokio::test]
async fn random_operations_leave_redis_as_the_model_says() {
    let mut seeds = seeded("model");
    let end = Instant::now() + BUDGET;
    let mut worlds = 0;
    while worlds < 3 || Instant::now() < end {
        let mut run = Run::new(seeds.rng.random()).await;
        for _ in 0..STEPS {
            run.step().await;
            run.compare().await;
        }
        run.drain().await;
        worlds += 1;
    }
}
