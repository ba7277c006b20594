//! Records of dead letters: stored once, changed by compare-and-set, counted as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::future::join_all;
use hive_domain::dead_letter::{category::Category, status::Status};
use hive_store::letters::{
    Attempt, Bounds, Change, Changed, Count, Facts, Found, Index, Letter, Letters, LettersKey,
    NewLetter, Order, Place, State, Step, Taken, Totals,
};

use super::world::{World, world};

mod random;

static NAMESPACE: AtomicU64 = AtomicU64::new(0);

/// Bounds that no test meets.
const FREE: Bounds = Bounds {
    records: 1_000_000,
    bytes: 1 << 40,
};

/// The dead letters of a namespace of their own.
struct Queue {
    world: World,
    letters: Letters,
}

async fn queue() -> Queue {
    let world = world().await;
    let number = NAMESPACE.fetch_add(1, Ordering::Relaxed);
    let letters = world.store.letters(&format!("d{number}"));
    Queue { world, letters }
}

fn change(number: u64) -> Change {
    Change {
        at_ms: number,
        status: Status::Analyzed,
        by: "test".into(),
        why: format!("change {number}"),
    }
}

/// A record of group `g`.
fn new(id: &str, dead_ms: u64) -> NewLetter {
    let facts = Facts {
        message_id: format!("m-{id}"),
        stream: "s".into(),
        group: "g".into(),
        fingerprint: "f".into(),
        error: "no such file".into(),
        category: Category::Timeout,
        attempts: vec![Attempt {
            consumer: "c".into(),
            ..Attempt::default()
        }],
        dead_ms,
        ..Facts::default()
    };
    NewLetter {
        letter: Letter {
            id: id.into(),
            version: 0,
            status: Status::Analyzed,
            facts,
            state: State::default(),
        },
        body: Bytes::from_static(b"header and envelope"),
        change: change(0),
    }
}

impl Queue {
    async fn take_within(&self, new: &NewLetter, bounds: Bounds) -> Taken {
        let taken = self.world.store.take_letter(&self.letters, new, bounds);
        taken.await.expect("taken")
    }

    async fn take(&self, new: &NewLetter) -> Taken {
        self.take_within(new, FREE).await
    }

    async fn read(&self, id: &str) -> Option<Letter> {
        let read = self.world.store.read_letter(&self.letters, id).await;
        read.expect("read").there()
    }

    async fn there(&self, id: &str) -> Letter {
        self.read(id).await.expect("a record")
    }

    async fn change(&self, letter: &Letter, status: Status, step: &Step) -> Changed {
        let store = &self.world.store;
        let changed = store.change_letter(&self.letters, letter, status, step);
        changed.await.expect("changed")
    }

    async fn remove(&self, letter: &Letter) -> Changed {
        let removed = self.world.store.remove_letter(&self.letters, letter).await;
        removed.expect("removed")
    }

    async fn totals(&self) -> Totals {
        let totals = self.world.store.letter_totals(&self.letters).await;
        totals.expect("totals")
    }

    async fn raw<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.world.redis(words).await
    }

    /// All members of an index, read in pages of this size.
    async fn pages(&self, index: &Index, order: Order, size: usize) -> Vec<Place> {
        let mut found: Vec<Place> = Vec::new();
        loop {
            let after = found.last();
            let store = &self.world.store;
            let page = store.letter_ids(&self.letters, index, (order, after), (0, 0), size);
            let page = page.await.expect("a page");
            if page.is_empty() {
                return found;
            }
            assert!(page.len() <= size);
            found.extend(page);
        }
    }

    /// Everything that Redis holds of the namespace, by key: names and values of hashes and sets,
    /// in the order of their bytes, for a hash has none.
    async fn dump(&self) -> BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>> {
        let pattern = format!("{}*", self.letters.tag());
        let keys: Vec<String> = self.raw(&["KEYS", &pattern]).await;
        let mut all = BTreeMap::new();
        for key in keys {
            let kind: String = self.raw(&["TYPE", &key]).await;
            let mut rows: Vec<(Vec<u8>, Vec<u8>)> = match kind.as_str() {
                "hash" => self.raw(&["HGETALL", &key]).await,
                _ => self.raw(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).await,
            };
            rows.sort();
            all.insert(key, rows);
        }
        all
    }
}

#[tokio::test]
async fn a_record_is_stored_once_and_one_that_was_removed_is_known_for_a_while() {
    let queue = queue().await;
    let one = new("a", 1_000);
    assert_eq!(queue.take(&one).await, Taken::New);
    let before = queue.dump().await;
    assert_eq!(queue.take(&one).await, Taken::Known);
    assert!(queue.dump().await == before, "the second take wrote");
    let letter = queue.there("a").await;
    assert_eq!((letter.version, letter.status), (1, Status::Analyzed));
    assert_eq!(letter.facts, one.letter.facts);
    assert_eq!(queue.remove(&letter).await, Changed::Done(0));
    assert_eq!(queue.totals().await, Totals::default());
    assert_eq!(queue.take(&one).await, Taken::Known);
    assert_eq!(queue.read("a").await, None);
    // Half an hour later nobody holds it any more.
    let gone = queue.letters.own(LettersKey::Gone);
    let _: i64 = queue.raw(&["ZADD", &gone, "XX", "1", "a"]).await;
    assert_eq!(queue.take(&new("b", 1)).await, Taken::New);
    assert_eq!(
        queue.remove(&queue.there("b").await).await,
        Changed::Done(0)
    );
    assert_eq!(queue.take(&one).await, Taken::New);
}

#[tokio::test]
async fn no_more_records_are_stored_than_the_bound_and_known_ones_stay_known() {
    let queue = queue().await;
    let bounds = Bounds { records: 3, ..FREE };
    for id in ["a", "b", "c"] {
        assert_eq!(queue.take_within(&new(id, 1), bounds).await, Taken::New);
    }
    let before = queue.dump().await;
    assert_eq!(queue.take_within(&new("d", 1), bounds).await, Taken::Full);
    assert_eq!(queue.take_within(&new("a", 1), bounds).await, Taken::Known);
    assert!(queue.dump().await == before, "a full queue was written to");
    // What is archived still has its place; what is removed has none.
    let letter = queue.there("a").await;
    let step = Step::default();
    assert_eq!(
        queue.change(&letter, Status::Archived, &step).await,
        Changed::Done(2)
    );
    assert_eq!(queue.take_within(&new("d", 1), bounds).await, Taken::Full);
    let letter = queue.there("a").await;
    assert_eq!(queue.remove(&letter).await, Changed::Done(0));
    assert_eq!(queue.take_within(&new("d", 1), bounds).await, Taken::New);
}

#[tokio::test]
async fn no_more_bytes_are_stored_than_the_bound() {
    let queue = queue().await;
    assert_eq!(queue.take(&new("a", 1)).await, Taken::New);
    let size = queue.totals().await.bytes;
    let bounds = Bounds {
        bytes: 2 * size,
        ..FREE
    };
    assert_eq!(queue.take_within(&new("b", 1), bounds).await, Taken::New);
    assert_eq!(queue.totals().await.bytes, 2 * size);
    assert_eq!(queue.take_within(&new("c", 1), bounds).await, Taken::Full);
    let one_less = Bounds {
        bytes: 3 * size - 1,
        ..FREE
    };
    assert_eq!(queue.take_within(&new("c", 1), one_less).await, Taken::Full);
    assert_eq!(queue.totals().await.records, 2);
}

#[tokio::test]
async fn of_all_who_read_one_version_one_changes_it() {
    let queue = queue().await;
    queue.take(&new("a", 1)).await;
    let letter = queue.there("a").await;
    let step = Step {
        change: Some(change(1)),
        ..Step::default()
    };
    let tries = (0..20).map(|_| queue.change(&letter, Status::Replaying, &step));
    let all = join_all(tries).await;
    let done = all.iter().filter(|one| **one == Changed::Done(2)).count();
    let stale = all.iter().filter(|one| **one == Changed::Stale).count();
    assert_eq!((done, stale), (1, 19), "{all:?}");
    let before = queue.dump().await;
    let late = Step {
        edited: Some(Bytes::from_static(b"late")),
        count: Some(("j".into(), Count::Attempted { limit: 0 })),
        ..step
    };
    assert_eq!(
        queue.change(&letter, Status::Archived, &late).await,
        Changed::Stale
    );
    assert_eq!(queue.remove(&letter).await, Changed::Stale);
    assert!(queue.dump().await == before, "a stale change wrote");
    let letter = queue.there("a").await;
    assert_eq!(queue.remove(&letter).await, Changed::Done(0));
    assert_eq!(
        queue.change(&letter, Status::Archived, &late).await,
        Changed::Stale
    );
    assert_eq!(queue.read("a").await, None, "a change brings nothing back");
}

#[tokio::test]
async fn a_job_tries_no_more_than_its_limit_however_many_try_at_once() {
    let queue = queue().await;
    let mut letters = Vec::new();
    for number in 0..10 {
        let id = number.to_string();
        queue.take(&new(&id, 1)).await;
        letters.push(queue.there(&id).await);
    }
    let counted = |count: Count| Step {
        count: Some(("j".into(), count)),
        ..Step::default()
    };
    let tried = counted(Count::Attempted { limit: 4 });
    let tries = letters
        .iter()
        .map(|letter| queue.change(letter, Status::Replaying, &tried));
    let all = join_all(tries).await;
    let limit = all.iter().filter(|one| **one == Changed::Limit).count();
    assert_eq!(limit, 6, "{all:?}");
    let by_status = queue.totals().await.by_status;
    let expected = [("analyzed", 6), ("replaying", 4)];
    assert_eq!(
        by_status,
        expected.map(|(name, count)| (name.to_owned(), count))
    );
    let counts = async || {
        let counts = queue.world.store.job_counts(&queue.letters, "j").await;
        counts.expect("counts")
    };
    assert_eq!(counts().await, [4, 0, 0]);
    let (mut done, mut open) = (Vec::new(), Vec::new());
    for (letter, changed) in letters.into_iter().zip(all) {
        let list = if changed == Changed::Limit {
            &mut open
        } else {
            &mut done
        };
        list.push(letter.id);
    }
    // What is sent back or fails is no new try; what is refused at once is one.
    for (id, count) in done.iter().zip([Count::Replayed, Count::Failed]) {
        let letter = queue.there(id).await;
        let step = counted(count);
        let changed = queue.change(&letter, Status::Replayed, &step).await;
        assert_eq!(changed, Changed::Done(3));
    }
    assert_eq!(counts().await, [4, 1, 1]);
    let letter = queue.there(&open[0]).await;
    let refused = |limit| counted(Count::Refused { limit });
    let changed = queue.change(&letter, Status::Analyzed, &refused(4)).await;
    assert_eq!((changed, counts().await), (Changed::Limit, [4, 1, 1]));
    let changed = queue.change(&letter, Status::Analyzed, &refused(5)).await;
    assert_eq!((changed, counts().await), (Changed::Done(2), [5, 1, 2]));
    let forgotten = queue.world.store.forget_job_counts(&queue.letters, "j");
    forgotten.await.expect("forgotten");
    assert_eq!(counts().await, [0, 0, 0]);
}

#[tokio::test]
async fn a_history_keeps_its_first_line_and_the_newest_49() {
    let queue = queue().await;
    queue.take(&new("a", 1)).await;
    for number in 1..=70 {
        let letter = queue.there("a").await;
        let mut line = change(number);
        line.why.push_str("\nwith \"two\" lines");
        let step = Step {
            change: Some(line),
            ..Step::default()
        };
        queue.change(&letter, Status::Analyzed, &step).await;
    }
    let content = queue.world.store.letter_content(&queue.letters, "a").await;
    let history = content.expect("content").expect("a record").history;
    let seen: Vec<u64> = history.iter().map(|line| line.at_ms).collect();
    let expected: Vec<u64> = std::iter::once(0).chain(22..=70).collect();
    assert_eq!(seen, expected);
    assert!(history[49].why.ends_with("\nwith \"two\" lines"));
}

#[tokio::test]
async fn an_edited_payload_counts_by_its_size_and_makes_room_when_it_shrinks() {
    let queue = queue().await;
    queue.take(&new("a", 1)).await;
    let before = queue.totals().await.bytes;
    for size in [1_000_u64, 10, 5_000, 0] {
        let letter = queue.there("a").await;
        let payload = vec![0xff; usize::try_from(size).expect("a size")];
        let step = Step {
            edited: Some(payload.clone().into()),
            ..Step::default()
        };
        queue.change(&letter, Status::Analyzed, &step).await;
        assert_eq!(queue.totals().await.bytes, before + size);
        let content = queue.world.store.letter_content(&queue.letters, "a").await;
        let content = content.expect("content").expect("a record");
        assert_eq!(content.edited.as_deref(), Some(payload.as_slice()));
    }
    // A change that names no payload keeps it.
    let letter = queue.there("a").await;
    queue
        .change(&letter, Status::Analyzed, &Step::default())
        .await;
    let content = queue.world.store.letter_content(&queue.letters, "a").await;
    assert!(content.expect("content").expect("it").edited.is_some());
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_where_many_died_at_once() {
    let queue = queue().await;
    let mut expected = BTreeSet::new();
    for number in 0..90_u64 {
        let (id, dead_ms) = (format!("{:x}", number * 7_919 % 256), 10 + number / 40);
        queue.take(&new(&id, dead_ms)).await;
        expected.insert((dead_ms, id));
    }
    let oldest: Vec<_> = expected.into_iter().collect();
    let newest: Vec<_> = oldest.iter().rev().cloned().collect();
    for size in [1, 7, 16, 50, 200] {
        for (order, expected) in [(Order::Oldest, &oldest), (Order::Newest, &newest)] {
            let pages = queue.pages(&Index::All, order, size).await;
            let seen: Vec<_> = pages.into_iter().map(|one| (one.dead_ms, one.id)).collect();
            assert!(seen == *expected, "{order:?} by {size}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_record_of_another_build_is_unreadable_and_not_absent() {
    let queue = queue().await;
    queue.take(&new("a", 1)).await;
    queue.take(&new("b", 2)).await;
    let mut raw = queue.world.raw.clone();
    let mut set = redis::cmd("HSET");
    set.arg(queue.letters.letter("a"))
        .arg("status")
        .arg("future");
    set.exec_async(&mut raw).await.expect("an answer");
    let ids = ["a", "b", "c"].map(str::to_owned);
    let found = queue.world.store.read_letters(&queue.letters, &ids).await;
    let found = found.expect("an answer");
    let is_expected = matches!(
        found.as_slice(),
        [Found::Unreadable, Found::There(letter), Found::Absent] if letter.id == "b"
    );
    assert!(is_expected, "{found:?}");
}
