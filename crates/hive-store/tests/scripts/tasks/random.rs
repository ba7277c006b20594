//! Random interleavings of everything that may happen to tasks: a dispatch key has one outcome, and
//! no delivery behind it.
//!
//! `HIVE_SEED` replays a run; the operations of a failing one are printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hive_domain::group::AFFINITY_WAIT_MS;
use hive_store::{
    Lease,
    fetch::{Fetched, Taker},
    settle::{Action, Settle, Verdict},
    tasks::{Dispatched, Resolved, SettledWhat, TaskEntry, TaskOutcome, TaskRow},
};
use hive_testkit::rng::seeded;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};

use super::{by_signal, dispatch, expiring, key, purge, task};
use crate::world::{World, lose, nack, reject, with_group};

const TASKS: u32 = 60;
/// Operations of one world, and how long worlds are tried.
const STEPS: u64 = 100;
const BUDGET: Duration = Duration::from_secs(8);

struct Run {
    world: World,
    rng: StdRng,
    takers: Vec<Taker>,
    /// Whether tasks are held for who last worked on their run.
    hold_ms: u64,
    /// Every lease that was ever given out, old ones too.
    leases: Vec<(Lease, u64)>,
    /// What resolves were answered to have decided.
    decided: BTreeMap<String, TaskOutcome>,
    dispatched: BTreeSet<String>,
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
        let world = with_group().await;
        let takers = vec![
            world.join("g", "a", &[]).await,
            world.join("g", "b", &[]).await,
        ];
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            world,
            hold_ms: rng.random_range(0..2) * AFFINITY_WAIT_MS,
            rng,
            takers,
            leases: Vec::new(),
            decided: BTreeMap::new(),
            dispatched: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.dispatch().await,
            22..42 => self.fetch(2).await,
            42..66 => self.settle().await,
            66..80 => self.resolve().await,
            80..85 => {
                self.log.push("end backoffs".into());
                self.world.end_backoffs("g").await;
            },
            85..88 => {
                self.log.push("purge".into());
                if !self.world.lanes("g").await.is_empty() {
                    purge(&self.world).await;
                }
            },
            88..96 => {
                self.log.push("expire".into());
                for lane in self.world.lanes("g").await.iter() {
                    let (store, shard) = (&self.world.store, &self.world.shard);
                    let walk = store.expire_waiting(shard, "g", lane, "-", ("expired", b""));
                    walk.await.expect("an expiry");
                }
            },
            _ => self.look().await,
        }
    }

    fn number(&mut self) -> u32 {
        self.rng.random_range(0..TASKS)
    }

    /// A task is the same whenever it is sent.
    fn entry(number: u32) -> TaskEntry {
        match number % 4 {
            0 => by_signal(number),
            1 => expiring(number),
            _ => task(number),
        }
    }

    async fn dispatch(&mut self) {
        let count = self.rng.random_range(1..4);
        let numbers: Vec<u32> = (0..count).map(|_| self.number()).collect();
        self.log.push(format!("dispatch {numbers:?}"));
        let entries: Vec<TaskEntry> = numbers.into_iter().map(Self::entry).collect();
        let new: BTreeSet<&String> = entries
            .iter()
            .map(|entry| &entry.dispatch_key)
            .filter(|key| !self.dispatched.contains(*key) && !self.decided.contains_key(*key))
            .collect();
        let added = u32::try_from(new.len()).expect("a few");
        let done = dispatch(&self.world, &entries).await;
        assert_eq!(done, Dispatched::Done { added });
        let keys = entries.into_iter().map(|entry| entry.dispatch_key);
        self.dispatched.extend(keys);
    }

    async fn fetch(&mut self, count: u32) {
        let mut takers = self.takers.clone();
        takers.shuffle(&mut self.rng);
        takers.truncate(self.rng.random_range(1..3));
        let slots: Vec<(usize, u32)> = (0..takers.len()).map(|at| (at, count)).collect();
        let ended = self.ended().await;
        let hold_ms = self.hold_ms;
        let fetched = self
            .world
            .fetch_with("g", &takers, &slots, |fetch| fetch.hold_ms = hold_ms)
            .await;
        let Fetched::Taken { entries, .. } = fetched else {
            panic!("{fetched:?}");
        };
        for taken in entries {
            let taker = &takers[taken.taker];
            let (header, _) = hive_store::header::Header::split(&taken.body).expect("a header");
            let key = header.dispatch_key.to_string();
            assert!(!ended.contains_key(&key), "{key} was decided");
            self.log.push(format!("{key} to {}", taker.consumer));
            let lease = self.world.lease("g", taker, &taken).await;
            self.leases.push((lease, taker.attach));
        }
    }

    async fn settle(&mut self) {
        let Some((lease, attach)) = self.leases.choose(&mut self.rng).cloned() else {
            return;
        };
        let bytes = Bytes::from_static;
        let action = match self.rng.random_range(0..9) {
            0 | 1 => Action::Ack,
            2 => Action::Complete {
                result: bytes(b"result"),
            },
            3 => Action::Suspend {
                asked: bytes(b"which?"),
            },
            4 => nack(Some(self.rng.random_range(0..2) * 60_000)),
            5 => Action::Release { retry_after_ms: 0 },
            6 => reject(),
            7 => lose(0),
            _ => Action::Expire,
        };
        let what = format!("{action:?} of {}", lease.token());
        let settle = Settle {
            lease,
            attach,
            check_session: true,
            action,
        };
        // Twice in one call too.
        let items = vec![settle; self.rng.random_range(1..3)];
        let verdicts = self.world.settle_all("g", &items).await;
        self.log.push(format!("{what}: {verdicts:?}"));
        let taken = |one: &&Verdict| matches!(one, Verdict::Done | Verdict::Dead);
        assert!(verdicts.iter().filter(taken).count() < 2, "taken twice");
    }

    async fn resolve(&mut self) {
        let number = self.number();
        let key = key(number);
        let outcomes = [TaskOutcome::Cancelled, TaskOutcome::TimedOut];
        let outcome = *outcomes.choose(&mut self.rng).expect("an outcome");
        let before = self.ended().await.get(&key).copied();
        let resolved = super::resolve(&self.world, number, outcome).await;
        self.log.push(format!("{outcome:?} {key}: {resolved:?}"));
        match (before, resolved) {
            (Some(before), Resolved::Already(said)) => assert_eq!(said, before, "{key}"),
            (None, Resolved::Ended { .. }) => {
                self.decided.insert(key, outcome);
            },
            (before, resolved) => panic!("{key}: {before:?}, but {resolved:?}"),
        }
    }

    async fn look(&mut self) {
        let number = self.number();
        let ended = self.ended().await.get(&key(number)).copied();
        let row = super::row(&self.world, number).await;
        self.log.push(format!("look at {number}: {row:?}"));
        match row {
            TaskRow::Ended(said) => assert_eq!(Some(said), ended),
            TaskRow::Unknown => assert!(!self.dispatched.contains(&key(number)), "lost"),
            TaskRow::Waiting | TaskRow::Leased { .. } | TaskRow::Acked => assert_eq!(ended, None),
        }
    }

    /// The outcome of each key; one, and nothing behind it.
    async fn ended(&self) -> BTreeMap<String, TaskOutcome> {
        let (store, shard) = (&self.world.store, &self.world.shard);
        let mut ended = BTreeMap::new();
        for record in store.read_settled(shard, "0-0", 9_999).await.expect("all") {
            let key = record.dispatch_key;
            assert!(!ended.contains_key(&key), "{key}: {:?}", record.what);
            if let SettledWhat::Ended { outcome, .. } = record.what {
                ended.insert(key, outcome);
            }
        }
        ended
    }

    async fn check(&self) {
        let ended = self.ended().await;
        for (key, outcome) in &self.decided {
            assert_eq!(ended.get(key), Some(outcome), "{key}");
        }
        let mut unread = 0;
        for lane in self.world.lanes("g").await.iter() {
            let groups: Vec<BTreeMap<String, redis::Value>> =
                self.world.redis(&["XINFO", "GROUPS", &lane.stream]).await;
            let last = groups[0]["last-delivered-id"].clone();
            let last: String = redis::from_redis_value(last).expect("an id");
            let from = format!("({last}");
            let rest: Vec<redis::Value> = self
                .world
                .redis(&["XRANGE", &lane.stream, &from, "+"])
                .await;
            unread += rest.len() as u64;
        }
        assert_eq!(self.world.figures("g").await.waiting, unread);
    }

    /// Takes and acks all there is: then every task has its outcome, or waits for its signal.
    async fn drain(&mut self) {
        for (lease, attach) in std::mem::take(&mut self.leases) {
            let settle = Settle {
                lease,
                attach,
                check_session: true,
                action: Action::Ack,
            };
            self.world.settle_all("g", &[settle]).await;
        }
        self.world.end_backoffs("g").await;
        self.hold_ms = 0;
        loop {
            self.fetch(100).await;
            let Some((lease, attach)) = self.leases.pop() else {
                break;
            };
            self.leases.push((lease, attach));
            for (lease, attach) in std::mem::take(&mut self.leases) {
                let settle = Settle {
                    lease,
                    attach,
                    check_session: true,
                    action: Action::Ack,
                };
                self.world.settle_all("g", &[settle]).await;
            }
        }
        let figures = self.world.figures("g").await;
        assert_eq!((figures.waiting, figures.pending), (0, 0));
        assert_eq!(figures.unsettled_bytes, 0);
        let ended = self.ended().await;
        for number in 0..TASKS {
            let key = key(number);
            if self.dispatched.contains(&key) && !ended.contains_key(&key) {
                let row = super::row(&self.world, number).await;
                assert_eq!(row, TaskRow::Acked, "{key}");
            }
        }
        self.check().await;
    }
}

#[tokio::test]
async fn a_dispatch_key_has_one_outcome_and_no_delivery_behind_it() {
    let mut seeds = seeded("tasks");
    let end = Instant::now() + BUDGET;
    let mut worlds = 0;
    while worlds < 3 || Instant::now() < end {
        let mut run = Run::new(seeds.rng.random()).await;
        for _ in 0..STEPS {
            run.step().await;
            run.check().await;
        }
        run.drain().await;
        worlds += 1;
    }
}
