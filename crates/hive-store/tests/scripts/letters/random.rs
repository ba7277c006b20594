//! Random takes, changes and removals; then all that is counted and indexed is what is there.

use std::collections::{BTreeMap, BTreeSet};

use hive_domain::dead_letter::{category::Category, status::Status};
use hive_store::letters::{
    Changed, Count, Index, Letter, LettersKey, NewLetter, Step, Taken, Tally, Totals,
};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{Queue, change, new, queue};

const GROUPS: [&str; 3] = ["", "g", "h"];
const STREAMS: [&str; 2] = ["s", "t"];
const PRINTS: [&str; 3] = ["f1", "f2", "f3"];
const CONSUMERS: [&str; 3] = ["", "c1", "c2"];
const WORKFLOWS: [&str; 2] = ["", "w"];
const CATEGORIES: [Category; 3] = [Category::Timeout, Category::Unknown, Category::Expired];
const JOBS: [&str; 2] = ["j1", "j2"];

/// What is known of a record beside itself.
#[derive(Default)]
struct Known {
    letter: Option<Letter>,
    replaying_ms: u64,
    awaiting_ms: u64,
}

#[derive(Default)]
struct Model {
    there: BTreeMap<String, Known>,
    gone: BTreeSet<String>,
    jobs: BTreeMap<String, [u64; 3]>,
    tallies: [u64; 3],
}

fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(rng).copied().unwrap_or_default()
}

fn random_letter(rng: &mut StdRng, id: &str) -> NewLetter {
    let mut made = new(id, rng.random_range(1..50));
    let statuses = [Status::Quarantined, Status::Analyzed, Status::Replayable];
    made.letter.status = statuses.choose(rng).copied().unwrap_or_default();
    made.letter.state.due_ms = rng.random_range(0..3) * 100;
    made.body = vec![b'b'; rng.random_range(0..200)].into();
    let facts = &mut made.letter.facts;
    facts.group = pick(rng, &GROUPS).into();
    facts.stream = pick(rng, &STREAMS).into();
    facts.fingerprint = pick(rng, &PRINTS).into();
    facts.workflow_id = pick(rng, &WORKFLOWS).into();
    facts.category = CATEGORIES.choose(rng).copied().unwrap_or_default();
    facts.attempts[0].consumer = pick(rng, &CONSUMERS).into();
    made
}

fn random_step(rng: &mut StdRng, letter: &Letter, number: u64) -> Step {
    let mut state = letter.state.clone();
    state.due_ms = rng.random_range(0..3) * 100;
    state.message_id = "x".repeat(rng.random_range(0..40));
    let job = pick(rng, &JOBS).to_owned();
    let counts = [
        Count::Attempted { limit: 30 },
        Count::Replayed,
        Count::Failed,
        Count::Refused { limit: 30 },
    ];
    let tallies = [Tally::Sent, Tally::Succeeded, Tally::Failed];
    let edited = vec![b'e'; rng.random_range(0..100)];
    Step {
        state,
        change: rng.random_bool(0.7).then(|| change(number)),
        edited: rng.random_bool(0.3).then(|| edited.into()),
        replaying_ms: rng.random_range(0..3) * 10,
        awaiting_ms: rng.random_range(0..3) * 10,
        count: (counts.choose(rng).copied())
            .filter(|_| rng.random_bool(0.5))
            .map(|count| (job, count)),
        tally: (tallies.choose(rng).copied()).filter(|_| rng.random_bool(0.5)),
    }
}

impl Model {
    fn any(&self, rng: &mut StdRng) -> Option<Letter> {
        let ids: Vec<&String> = self.there.keys().collect();
        let id = ids.choose(rng)?;
        self.there[*id].letter.clone()
    }

    /// What is expected of a change, and the counts with it.
    fn changed(&mut self, letter: &Letter, status: Status, step: &Step) -> Changed {
        if let Some((job, count)) = &step.count {
            let counts = self.jobs.entry(job.clone()).or_default();
            match count {
                Count::Attempted { limit } | Count::Refused { limit } if counts[0] >= *limit => {
                    return Changed::Limit;
                },
                Count::Attempted { .. } => counts[0] += 1,
                Count::Replayed => counts[1] += 1,
                Count::Failed => counts[2] += 1,
                Count::Refused { .. } => {
                    counts[0] += 1;
                    counts[2] += 1;
                },
            }
        }
        match step.tally {
            None => {},
            Some(Tally::Sent) => self.tallies[0] += 1,
            Some(Tally::Succeeded) => self.tallies[1] += 1,
            Some(Tally::Failed) => self.tallies[2] += 1,
        }
        let version = letter.version + 1;
        let known = Known {
            letter: Some(Letter {
                version,
                status,
                state: step.state.clone(),
                ..letter.clone()
            }),
            replaying_ms: step.replaying_ms,
            awaiting_ms: step.awaiting_ms,
        };
        self.there.insert(letter.id.clone(), known);
        Changed::Done(version)
    }
}

async fn one_step(queue: &Queue, model: &mut Model, rng: &mut StdRng, number: u64) {
    match (rng.random_range(0..100), model.any(rng)) {
        (0..40, _) | (_, None) => {
            let id = rng.random_range(0..120).to_string();
            let made = random_letter(rng, &id);
            let is_known = model.there.contains_key(&id) || model.gone.contains(&id);
            let taken = queue.take(&made).await;
            let expected = if is_known { Taken::Known } else { Taken::New };
            assert_eq!(taken, expected, "{id}");
            if taken == Taken::New {
                let letter = Letter {
                    version: 1,
                    ..made.letter
                };
                let known = Known {
                    letter: Some(letter),
                    ..Known::default()
                };
                model.there.insert(id, known);
            }
        },
        (40..50, Some(mut letter)) => {
            letter.version += [1, 2, 1_000][rng.random_range(0..3)];
            let step = random_step(rng, &letter, number);
            let changed = queue.change(&letter, Status::Replayed, &step).await;
            assert_eq!(changed, Changed::Stale);
        },
        (50..88, Some(letter)) => {
            let status = Status::ALL.choose(rng).copied().unwrap_or_default();
            let step = random_step(rng, &letter, number);
            let changed = queue.change(&letter, status, &step).await;
            assert_eq!(changed, model.changed(&letter, status, &step));
        },
        (_, Some(letter)) => {
            assert_eq!(queue.remove(&letter).await, Changed::Done(0));
            model.there.remove(&letter.id);
            model.gone.insert(letter.id);
        },
    }
}

/// Members of a sorted set, by name, as numbers.
async fn scores(queue: &Queue, key: &str) -> BTreeMap<String, u64> {
    let rows: Vec<(String, String)> = queue.raw(&["ZRANGE", key, "0", "-1", "WITHSCORES"]).await;
    rows.into_iter()
        .map(|(name, score)| (name, score.parse().expect("a whole number")))
        .collect()
}

/// Adds one under a name.
fn add(counts: &mut BTreeMap<String, u64>, name: impl Into<String>) {
    *counts.entry(name.into()).or_default() += 1;
}

/// Bytes of a record, as Redis holds them.
async fn bytes_of(queue: &Queue, id: &str) -> u64 {
    let key = queue.letters.letter(id);
    let fields: BTreeMap<String, Vec<u8>> = queue.raw(&["HGETALL", &key]).await;
    let counted = ["body", "facts", "state", "history", "example", "edited"];
    let bytes = counted.iter().filter_map(|name| fields.get(*name));
    let bytes: usize = bytes.map(Vec::len).sum();
    let stored = String::from_utf8_lossy(&fields["bytes"]).into_owned();
    assert_eq!(stored, bytes.to_string(), "bytes of `{id}`");
    u64::try_from(bytes).expect("a size")
}

/// Everything in Redis is what the records say.
async fn recount(queue: &Queue, model: &Model) {
    let mut expected = Totals::default();
    let [mut statuses, mut categories, mut groups, mut streams] = [const { BTreeMap::new() }; 4];
    let (mut prints, mut sources) = (BTreeMap::new(), BTreeMap::new());
    let mut indexes: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let times = [LettersKey::Due, LettersKey::Replaying, LettersKey::Awaiting];
    for index in [Index::All, Index::Live] {
        indexes.insert(queue.letters.index(&index), BTreeMap::new());
    }
    for key in times {
        indexes.insert(queue.letters.own(key), BTreeMap::new());
    }
    for (id, known) in &model.there {
        let letter = known.letter.as_ref().expect("a record");
        assert_eq!(queue.read(id).await.as_ref(), Some(letter));
        let facts = &letter.facts;
        expected.records += 1;
        expected.bytes += bytes_of(queue, id).await;
        add(&mut statuses, letter.status.as_str());
        let mut member_of = vec![
            Index::All,
            Index::Status(letter.status),
            Index::Category(facts.category),
            Index::Stream(facts.stream.clone()),
            Index::Fingerprint(facts.fingerprint.clone()),
        ];
        if !facts.group.is_empty() {
            member_of.push(Index::Group(facts.group.clone()));
        }
        if !facts.workflow_id.is_empty() {
            member_of.push(Index::Workflow(facts.workflow_id.clone()));
        }
        if letter.status.is_live() {
            member_of.push(Index::Live);
            expected.live += 1;
            expected.dead_ms += u128::from(facts.dead_ms);
            add(&mut categories, facts.category.as_str());
            add(&mut groups, &facts.group);
            add(&mut streams, &facts.stream);
            add(&mut prints, &facts.fingerprint);
            if !facts.source().is_empty() {
                add(&mut sources, facts.source());
            }
        }
        for index in member_of {
            let members = indexes.entry(queue.letters.index(&index)).or_default();
            members.insert(id.clone(), facts.dead_ms);
        }
        let at = [letter.state.due_ms, known.replaying_ms, known.awaiting_ms];
        for (key, at) in times.into_iter().zip(at).filter(|(_, at)| *at > 0) {
            let members = indexes.entry(queue.letters.own(key)).or_default();
            members.insert(id.clone(), at);
        }
    }
    let rows = |counts: BTreeMap<String, u64>| counts.into_iter().collect::<Vec<_>>();
    expected.by_status = rows(statuses);
    expected.by_category = rows(categories);
    expected.by_group = rows(groups);
    expected.by_stream = rows(streams);
    [expected.sent, expected.succeeded, expected.failed] = model.tallies;
    assert_eq!(queue.totals().await, expected);
    for (key, members) in indexes {
        assert_eq!(scores(queue, &key).await, members, "{key}");
    }
    // No index but these has members.
    let pattern = format!("{}by:*", queue.letters.tag());
    let keys: Vec<String> = queue.raw(&["KEYS", &pattern]).await;
    for key in keys {
        for id in scores(queue, &key).await.keys() {
            assert!(model.there.contains_key(id), "{key} has `{id}`");
        }
    }
    let names: BTreeSet<&String> = prints.keys().collect();
    let examples: BTreeMap<String, String> = queue
        .raw(&["HGETALL", &queue.letters.own(LettersKey::Examples)])
        .await;
    assert_eq!(examples.keys().collect::<BTreeSet<_>>(), names);
    let patterns = queue.letters.own(LettersKey::Patterns);
    assert_eq!(scores(queue, &patterns).await, prints);
    let key = queue.letters.own(LettersKey::Sources);
    assert_eq!(scores(queue, &key).await, sources);
    for (job, counts) in &model.jobs {
        let counted = queue.world.store.job_counts(&queue.letters, job).await;
        assert_eq!(counted.expect("counts"), *counts, "{job}");
    }
}

#[tokio::test]
async fn counts_and_indexes_are_those_of_the_records_whatever_happened_to_them() {
    let mut seeded = hive_testkit::rng::seeded("letters");
    let queue = queue().await;
    let mut model = Model::default();
    for number in 1..=900 {
        one_step(&queue, &mut model, &mut seeded.rng, number).await;
        if number % 100 == 0 {
            recount(&queue, &model).await;
        }
    }
    // In the end nothing is left of what is removed.
    while let Some(letter) = model.any(&mut seeded.rng) {
        assert_eq!(queue.remove(&letter).await, Changed::Done(0));
        model.there.remove(&letter.id);
    }
    recount(&queue, &model).await;
}
