//! Random interleavings of everything that may happen to tracked messages: an id has one end, no
//! delivery behind it, and what was accepted has one in the end.
//!
//! `HIVE_SEED` replays a run; the operations of a failing one are printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hive_store::{
    Lease,
    fetch::Taker,
    publish::{Item, Outcome},
    settle::{Action, Settle, Verdict},
    sweep::Take,
    tasks::Resolved,
    tracked::{Tracked, keep, tracking_key},
};
use hive_testkit::rng::seeded;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{cancel, expiring, later, look, make_due, tracked};
use crate::world::{World, id_of, item, lose, nack, reject, with_group};

const IDS: u32 = 14;
/// Operations of one world, and how long worlds are tried.
const STEPS: u64 = 100;
const BUDGET: Duration = Duration::from_secs(6);

struct Run {
    world: World,
    rng: StdRng,
    takers: Vec<Taker>,
    /// Every lease that was ever given out, old ones too.
    leases: Vec<(Lease, u64)>,
    accepted: BTreeSet<String>,
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

/// A message is the same whenever it is sent. Among them are some that nobody tracks.
fn message(number: u32) -> (String, Item) {
    let id = format!("m{number}");
    let item = match number % 5 {
        0 => later(&id),
        1 => expiring(&id),
        2 => item("g/p4", &id),
        _ => tracked(&id),
    };
    (id, item)
}

impl Run {
    async fn new(seed: u64) -> Self {
        let world = with_group().await;
        let takers = vec![
            world.join("g", "a", &[]).await,
            world.join("g", "b", &[]).await,
        ];
        Self {
            world,
            rng: StdRng::seed_from_u64(seed),
            takers,
            leases: Vec::new(),
            accepted: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.publish().await,
            22..47 => self.fetch(2).await,
            47..70 => self.settle().await,
            70..78 => self.cancel().await,
            78..83 => {
                self.log.push("end backoffs".into());
                self.world.end_backoffs("g").await;
            },
            83..87 => {
                self.log.push("make due".into());
                make_due(&self.world).await;
            },
            87..90 => {
                self.log.push("purge".into());
                self.purge().await;
            },
            90..92 => {
                self.log.push("purge what is scheduled".into());
                let shard = &self.world.shard;
                let purged = self.world.store.cancel_scheduled(shard, "g", (0, true));
                purged.await.expect("a purge");
            },
            92..95 => {
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
        self.rng.random_range(0..IDS)
    }

    async fn publish(&mut self) {
        let (id, item) = message(self.number());
        let is_tracked = item.lanes[0].lane.is_tracked();
        let outcome = self.world.publish(vec![item]).await.remove(0);
        self.log.push(format!("publish {id}: {outcome:?}"));
        let is_known = is_tracked && self.accepted.contains(&id);
        let expected = if is_known {
            Outcome::TrackedBefore
        } else {
            Outcome::Added
        };
        assert_eq!(outcome, expected, "{id}");
        if is_tracked {
            self.accepted.insert(id);
        }
    }

    async fn fetch(&mut self, count: u32) {
        let taker = self.takers.choose(&mut self.rng).expect("a taker").clone();
        let ended = self.ended().await;
        for taken in self.world.take("g", &taker, count).await {
            let id = id_of(&taken.body);
            let key = tracking_key(&id);
            assert!(!ended.contains_key(&key), "{id} had ended");
            self.log.push(format!("{id} to {}", taker.consumer));
            let lease = self.world.lease("g", &taker, &taken).await;
            self.leases.push((lease, taker.attach));
        }
    }

    async fn settle(&mut self) {
        let Some((lease, attach)) = self.leases.choose(&mut self.rng).cloned() else {
            return;
        };
        let action = match self.rng.random_range(0..9) {
            0 | 1 => Action::Ack,
            2 => Action::Complete {
                result: keep(&Bytes::from_static(b"result"), 64),
            },
            3 => Action::Cancel,
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

    async fn cancel(&mut self) {
        let (id, _) = message(self.number());
        if !self.accepted.contains(&id) {
            return;
        }
        let before = self.ended().await.get(&tracking_key(&id)).cloned();
        let cancelled = cancel(&self.world, &id).await;
        self.log.push(format!("cancel {id}: {cancelled:?}"));
        match (before, cancelled) {
            (Some(before), Resolved::Already(said)) => assert_eq!(said.as_str(), before, "{id}"),
            (None, Resolved::Ended { .. }) => {},
            (before, cancelled) => panic!("{id}: {before:?}, but {cancelled:?}"),
        }
    }

    /// Takes what waits and cancels all that is pending, whoever holds it.
    async fn purge(&self) {
        let lanes = self.world.lanes("g").await;
        for (number, lane) in lanes.iter().enumerate() {
            let (store, shard) = (&self.world.store, &self.world.shard);
            let taken = store.take_waiting(shard, "g", lane, Take::All, 100);
            taken.await.expect("ids");
            let pending = store.pending("g", &lanes, number, ("-", 100), None).await;
            let items: Vec<Settle> = pending
                .expect("entries")
                .iter()
                .map(|entry| Settle {
                    lease: entry.lease(&lanes, "*", 0),
                    attach: 0,
                    check_session: false,
                    action: Action::Cancel,
                })
                .collect();
            if !items.is_empty() {
                self.world.settle_all("g", &items).await;
            }
        }
    }

    async fn look(&mut self) {
        let (id, _) = message(self.number());
        let ended = self.ended().await.contains_key(&tracking_key(&id));
        let seen = look(&self.world, &id).await;
        self.log.push(format!("look at {id}: {seen:?}"));
        match seen {
            Some(Tracked::Ended(_)) => assert!(ended, "{id}"),
            Some(Tracked::Scheduled | Tracked::Waiting { .. } | Tracked::Leased { .. }) => {
                assert!(!ended && self.accepted.contains(&id), "{id}");
            },
            None => assert!(!self.accepted.contains(&id), "{id} was lost"),
        }
    }

    /// How each key ended, which it did once.
    async fn ended(&self) -> BTreeMap<String, String> {
        let outcomes = self.world.shard.outcomes();
        let records: Vec<(String, Vec<String>)> =
            self.world.redis(&["XRANGE", &outcomes, "-", "+"]).await;
        let mut ended = BTreeMap::new();
        for (_, fields) in records {
            let of = |name: &str| {
                let place = fields.iter().position(|field| field == name);
                fields[place.expect("a field") + 1].clone()
            };
            let before = ended.insert(of("d"), of("o"));
            assert_eq!(before, None, "{fields:?}");
        }
        ended
    }

    /// Acks all there is: then every accepted message has its end, and nothing is counted.
    async fn drain(&mut self) {
        make_due(&self.world).await;
        self.world.end_backoffs("g").await;
        for _ in 0..2 {
            for (lease, attach) in std::mem::take(&mut self.leases) {
                let settle = Settle {
                    lease,
                    attach,
                    check_session: true,
                    action: Action::Ack,
                };
                self.world.settle_all("g", &[settle]).await;
            }
            self.fetch(1_000).await;
            self.fetch(1_000).await;
        }
        let figures = self.world.figures("g").await;
        assert_eq!((figures.waiting, figures.pending), (0, 0));
        assert_eq!((figures.scheduled, figures.unsettled_bytes), (0, 0));
        let ended = self.ended().await;
        let expected: BTreeSet<String> = self.accepted.iter().map(|id| tracking_key(id)).collect();
        let ended: BTreeSet<String> = ended.into_keys().collect();
        assert_eq!(ended, expected);
        let outcomes = self.world.shard.outcomes();
        let records: Vec<(String, BTreeMap<String, String>)> =
            self.world.redis(&["XRANGE", &outcomes, "-", "+"]).await;
        let size = |of: &BTreeMap<String, String>| 128 + of["d"].len() + of["b"].len();
        let sum: usize = records.iter().map(|(_, fields)| size(fields)).sum();
        let counted = self.world.store.bytes_of_outcomes(&self.world.shard).await;
        assert_eq!(counted.expect("bytes"), sum as u64);
        let rows: Vec<String> = self
            .world
            .redis(&["HVALS", &self.world.shard.tasks()])
            .await;
        assert!(rows.iter().all(|row| row.starts_with("ended ")), "{rows:?}");
    }
}

#[tokio::test]
async fn a_tracked_message_has_one_end_and_no_delivery_behind_it() {
    let mut seeds = seeded("tracked");
    let end = Instant::now() + BUDGET;
    let mut worlds = 0;
    while worlds < 3 || Instant::now() < end {
        let mut run = Run::new(seeds.rng.random()).await;
        for _ in 0..STEPS {
            run.step().await;
        }
        run.drain().await;
        worlds += 1;
    }
}
