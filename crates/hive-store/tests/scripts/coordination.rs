//! `scaling_claim`, `scaling_write`: who decides how a group is scaled, and what is kept of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hive_store::{
    StoreError,
    bells::{Desired, Line},
    control::Put,
    coordination::{EVENT_MAX, EVENTS_MAX, STATE_MAX, ScalingRow, ScalingWrite},
};
use hive_testkit::redis::RedisServer;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{sync::mpsc, time::timeout};

use crate::world::{World, on, world};

/// The namespace of a world, from the tag of its shard: `...{<namespace>/...`.
pub(crate) fn namespace(world: &World) -> &str {
    let (_, tag) = world.shard.tag().split_once('{').expect("a tag");
    tag.split('/').next().expect("a namespace")
}

fn of<'a>(group: &'a str, epoch: u64, desired: u32, events: &'a [String]) -> ScalingWrite<'a> {
    ScalingWrite {
        group,
        epoch,
        desired,
        asked: desired + 1,
        state: "{\"a\": 1}",
        events,
    }
}

impl World {
    async fn claim(&self, groups: &[&str], owner: &str) -> Vec<ScalingRow> {
        let claimed = self.store.claim_scaling(namespace(self), groups, owner);
        claimed.await.expect("claim")
    }

    async fn write(&self, owner: &str, writes: &[ScalingWrite<'_>]) -> Vec<bool> {
        let written = self.store.write_scaling(namespace(self), owner, writes);
        written.await.expect("write")
    }

    async fn row(&self, group: &str) -> Option<ScalingRow> {
        let row = self.store.scaling_row(namespace(self), group).await;
        row.expect("row")
    }

    async fn events(&self) -> Vec<String> {
        let events = self.store.scaling_events(namespace(self), None, 1_000);
        let events = events.await.expect("events");
        events.into_iter().map(|(_, event)| event).collect()
    }

    async fn put_row(&self, group: &str, row: &str) {
        let key = self.store.control_keys().scaling(namespace(self));
        let _: i64 = self.redis(&["HSET", &key, group, row]).await;
    }
}

#[tokio::test]
async fn each_new_owner_gets_the_next_epoch_and_an_old_one_keeps_its_own() {
    let world = world().await;
    let rows = world.claim(&["g", "h"], "c1").await;
    assert_eq!(
        rows[0],
        ScalingRow {
            group: "g".into(),
            epoch: 1,
            owner: "c1".into(),
            decided_ms: 0,
            desired: None,
            asked: 0,
            state: String::new(),
        }
    );
    assert_eq!((&*rows[1].group, rows[1].epoch), ("h", 1));
    assert_eq!(world.claim(&["g", "h"], "c1").await, rows, "once more");
    let rows = world.claim(&["h"], "c2").await;
    assert_eq!((rows[0].epoch, &*rows[0].owner), (2, "c2"));
    let rows = world.claim(&["g", "h"], "c1").await;
    assert_eq!((rows[0].epoch, rows[1].epoch), (1, 3));
}

#[tokio::test]
async fn a_claim_keeps_what_was_decided() {
    let world = world().await;
    world.claim(&["g"], "c1").await;
    assert_eq!(world.write("c1", &[of("g", 1, 5, &[])]).await, [true]);
    let before = world.row("g").await.expect("a row");
    let [claimed] = world.claim(&["g"], "c2").await.try_into().expect("a row");
    assert_eq!((claimed.epoch, claimed.desired), (2, Some(5)));
    assert_eq!(claimed.asked, 6);
    assert_eq!(claimed.state, "{\"a\": 1}");
    assert_eq!(claimed.decided_ms, before.decided_ms);
    assert!(before.decided_ms > 1_600_000_000_000, "redis' time");
    let rows = world.store.scaling_rows(namespace(&world)).await;
    assert_eq!(rows.expect("rows"), BTreeMap::from([("g".into(), claimed)]));
}

#[tokio::test]
async fn an_old_epoch_another_owner_and_an_absent_row_write_nothing() {
    let world = world().await;
    world.claim(&["g", "h"], "c1").await;
    world.claim(&["g"], "c2").await;
    let before = world.row("g").await;
    let events = ["late".to_owned()];
    let ours = ["ours".to_owned()];
    // The epoch before, the right epoch by the wrong owner, one that nobody gave yet, no row.
    let writes = [
        of("g", 1, 9, &events),
        of("g", 2, 9, &events),
        of("g", 3, 9, &events),
        of("none", 1, 9, &events),
        of("h", 1, 4, &ours),
    ];
    let verdicts = world.write("c1", &writes).await;
    assert_eq!(verdicts, [false, false, false, false, true]);
    assert_eq!(world.row("g").await, before);
    assert_eq!(world.row("none").await, None);
    assert_eq!(world.row("h").await.expect("a row").desired, Some(4));
    assert_eq!(world.events().await, ["ours"]);
}

#[tokio::test]
async fn a_write_that_is_sent_again_notes_its_events_once() {
    let world = world().await;
    world.claim(&["g", "h"], "c1").await;
    let events = ["one".to_owned(), "two".to_owned()];
    let writes = [of("g", 1, 5, &events), of("h", 1, 5, &events)];
    assert_eq!(world.write("c1", &writes).await, [true, true]);
    let before = world.row("g").await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(world.write("c1", &writes).await, [true, true]);
    }
    assert_eq!(world.row("g").await, before);
    assert_eq!(world.events().await, ["two", "one", "two", "one"]);
    // Another wish is another decision; so is another event.
    let more = ["two".to_owned(), "three".to_owned()];
    world.write("c1", &[of("g", 1, 5, &more)]).await;
    assert_eq!(world.events().await[0], "three");
    world.write("c1", &[of("g", 1, 6, &events)]).await;
    assert_eq!(world.events().await.len(), 7);
    // Without events the time of the decision goes on.
    let before = world.row("g").await.expect("a row").decided_ms;
    tokio::time::sleep(Duration::from_millis(2)).await;
    world.write("c1", &[of("g", 1, 6, &[])]).await;
    assert!(world.row("g").await.expect("a row").decided_ms > before);
}

#[tokio::test]
async fn a_group_that_is_made_anew_is_safe_from_its_old_owner() {
    let world = world().await;
    world.claim(&["g"], "c1").await;
    world.claim(&["g"], "c2").await;
    let forgotten = world
        .store
        .forget_scaling(namespace(&world), &["g", "none"]);
    forgotten.await.expect("forget");
    assert_eq!(world.row("g").await, None);
    assert_eq!(world.write("c2", &[of("g", 2, 9, &[])]).await, [false]);
    // Epochs begin anew, and owners differ.
    assert_eq!(world.claim(&["g"], "c3").await[0].epoch, 1);
    assert_eq!(world.write("c1", &[of("g", 1, 9, &[])]).await, [false]);
    assert_eq!(world.write("c2", &[of("g", 2, 9, &[])]).await, [false]);
    assert_eq!(world.write("c3", &[of("g", 1, 2, &[])]).await, [true]);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_breaks_no_other_and_a_claim_mends_it() {
    let world = world().await;
    world.claim(&["g", "h", "i"], "c1").await;
    world.put_row("h", "7 c9 soon 3 4 {}").await;
    world.put_row("i", "nothing of ours").await;
    let rows = world.store.scaling_rows(namespace(&world)).await;
    let rows: Vec<String> = rows.expect("rows").into_keys().collect();
    assert_eq!(rows, ["g"]);
    for group in ["h", "i"] {
        let row = world.store.scaling_row(namespace(&world), group).await;
        assert!(matches!(row, Err(StoreError::Corrupt { .. })), "{row:?}");
    }
    let claimed = world.claim(&["g", "h", "i"], "c2").await;
    let epochs: Vec<u64> = claimed.iter().map(|row| row.epoch).collect();
    assert_eq!(epochs[..2], [2, 8]);
    assert!(epochs[2] > 1_600_000_000_000, "above all that were counted");
    assert_eq!((claimed[1].desired, &*claimed[1].state), (None, ""));
    let writes = [of("h", 8, 1, &[]), of("i", epochs[2], 2, &[])];
    assert_eq!(world.write("c2", &writes).await, [true, true]);
    assert_eq!(world.row("h").await.expect("a row").desired, Some(1));
    assert_eq!(world.claim(&["i"], "c3").await[0].epoch, epochs[2] + 1);
}

#[tokio::test]
async fn more_groups_than_fit_into_a_call_are_claimed_written_and_forgotten() {
    let world = world().await;
    let names: Vec<String> = (0..450).map(|number| format!("g{number}")).collect();
    let groups: Vec<&str> = names.iter().map(String::as_str).collect();
    let claimed = world.claim(&groups, "c1").await;
    assert_eq!(claimed.len(), 450);
    assert_eq!((&*claimed[449].group, claimed[449].epoch), ("g449", 1));
    let mut writes: Vec<_> = groups.iter().map(|group| of(group, 1, 3, &[])).collect();
    writes[300].epoch = 2;
    let written = world.write("c1", &writes).await;
    let fenced: Vec<usize> = (0..450).filter(|&at| !written[at]).collect();
    assert_eq!(fenced, [300]);
    let forgotten = world.store.forget_scaling(namespace(&world), &groups);
    forgotten.await.expect("forget");
    let rows = world.store.scaling_rows(namespace(&world)).await;
    assert_eq!(rows.expect("rows").len(), 0);
}

#[tokio::test]
async fn what_is_larger_than_it_may_be_is_refused_and_nothing_is_stored() {
    let world = world().await;
    world.claim(&["g", "h"], "c1").await;
    let large = "x".repeat(STATE_MAX);
    let state = |state| ScalingWrite {
        state,
        ..of("g", 1, 3, &[])
    };
    assert_eq!(world.write("c1", &[state(&large)]).await, [true]);
    let larger = format!("{large}x");
    let many = vec!["e".to_owned(); EVENTS_MAX + 1];
    let long = ["e".repeat(EVENT_MAX + 1)];
    for write in [state(&larger), of("g", 1, 3, &many), of("g", 1, 3, &long)] {
        let writes = [of("h", 1, 3, &[]), write];
        let refused = world.store.write_scaling(namespace(&world), "c1", &writes);
        let refused = refused.await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(world.row("h").await.expect("a row").desired, None);
    for owner in ["", "-", "a b"] {
        let refused = world.store.claim_scaling(namespace(&world), &["g"], owner);
        let refused = refused.await;
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn events_are_read_newest_first_by_pages_and_the_oldest_are_dropped() {
    let world = world().await;
    world.claim(&["g"], "c1").await;
    for round in 0..640 {
        let of_round = 16 * round + 1..=16 * round + 16;
        let events: Vec<String> = of_round.map(|number| number.to_string()).collect();
        world.write("c1", &[of("g", 1, round, &events)]).await;
    }
    let (store, namespace) = (&world.store, namespace(&world));
    let key = store.control_keys().scaling_events(namespace);
    let kept: u64 = world.redis(&["XLEN", &key]).await;
    assert!((10_000..10_200).contains(&kept), "{kept}");
    let first = store.scaling_events(namespace, None, 3).await;
    let first = first.expect("events");
    let texts: Vec<&str> = first.iter().map(|(_, event)| event.as_str()).collect();
    assert_eq!(texts, ["10240", "10239", "10238"]);
    let next = store.scaling_events(namespace, Some(&first[2].0), 2).await;
    let next = next.expect("events");
    assert_eq!(next[0].1, "10237");
    assert_eq!(next.len(), 2);
    let none = store.scaling_events(namespace, Some("0-1"), 2).await;
    assert_eq!(none.expect("events"), []);
}

#[tokio::test]
async fn a_changed_wish_is_told_and_one_that_stays_is_not() {
    let world = world().await;
    let line = world.store.lines(&[Line::Scaling]).await.expect("a line");
    let (rings, mut heard) = mpsc::unbounded_channel();
    let own = world.store.control_keys().scaling(namespace(&world));
    let listen = line.listen(move |channel, said| {
        // Other tests ring in their own namespaces.
        if channel == own {
            drop(rings.send(said.to_owned()));
        }
    });
    let act = async {
        world.claim(&["g"], "c1").await;
        for (epoch, desired) in [(1, 2), (1, 2), (2, 7), (1, 0)] {
            world.write("c1", &[of("g", epoch, desired, &[])]).await;
        }
        let mut said = Vec::new();
        for _ in 0..2 {
            let bell = timeout(Duration::from_secs(5), heard.recv()).await;
            said.push(Desired::parse(&bell.expect("in time").expect("a bell")));
        }
        let last = timeout(Duration::from_millis(100), heard.recv()).await;
        assert!(last.is_err(), "{last:?}");
        said
    };
    let said = tokio::select! {
        said = act => said,
        () = listen => panic!("the line lives"),
    };
    let wish = |consumers| {
        Some(Desired {
            group: "g".into(),
            consumers,
        })
    };
    assert_eq!(said, [wish(2), wish(0)]);
}

#[tokio::test]
async fn the_configuration_changes_only_from_the_version_that_was_read() {
    let server = RedisServer::start().await.expect("a server");
    let world = on(Arc::new(server)).await;
    let store = &world.store;
    let put = async |version, text| {
        let put = store.put_coordinator_config(version, text).await;
        put.expect("put")
    };
    assert_eq!(store.coordinator_config().await.expect("config"), None);
    assert_eq!(put(3, "{}").await, Put::Conflict);
    let Put::Stored(first) = put(0, "{\"a\": 1}").await else {
        panic!("it is new");
    };
    let again = put(0, "{\"a\": 1}").await;
    assert_eq!(again, Put::Stored(first), "sent again");
    assert_eq!(put(0, "{\"a\": 2}").await, Put::Conflict);
    let Put::Stored(second) = put(first, "{\"a\": 2}").await else {
        panic!("it is of the version that is there");
    };
    assert_eq!(put(first, "{\"a\": 3}").await, Put::Conflict);
    let config = store.coordinator_config().await.expect("config");
    assert_eq!(config, Some((second, "{\"a\": 2}".into())));
    let empty = store.put_coordinator_config(second, "").await;
    assert!(matches!(empty, Err(StoreError::Refused { .. })));
    let namespaces = store.namespaces().await.expect("namespaces");
    assert_eq!(namespaces, [""; 0]);
}

#[tokio::test]
async fn a_full_redis_stops_no_scaling() {
    let server = RedisServer::start().await.expect("a server");
    let world = on(Arc::new(server)).await;
    let _: String = world.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(world.claim(&["g"], "c1").await[0].epoch, 1);
    let events = ["e".to_owned()];
    assert_eq!(world.write("c1", &[of("g", 1, 5, &events)]).await, [true]);
    assert_eq!(world.events().await, ["e"]);
    let forgotten = world.store.forget_scaling(namespace(&world), &["g"]);
    forgotten.await.expect("forget");
}

/// What a row must be, by rules of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    epoch: u64,
    owner: String,
    desired: Option<u32>,
}

/// Owners that claim, write under what they believe, and sleep over the claims of others.
#[tokio::test]
async fn only_the_newest_claim_writes_whatever_the_order() {
    const OWNERS: [&str; 3] = ["c1", "c2", "c3"];
    const GROUPS: [&str; 3] = ["a", "b", "c"];
    for seed in 0..8 {
        let world = world().await;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model: BTreeMap<&str, Model> = BTreeMap::new();
        // Every epoch that an owner was ever given: a late write may come from any of them.
        let mut believed: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        let mut noted = Vec::new();
        for step in 0..300_u32 {
            let owner = *OWNERS.choose(&mut rng).expect("an owner");
            let groups: Vec<&str> = GROUPS
                .into_iter()
                .filter(|_| rng.random_bool(0.6))
                .collect();
            match rng.random_range(0..20) {
                0 => {
                    let forgotten = world.store.forget_scaling(namespace(&world), &groups);
                    forgotten.await.expect("forget");
                    for group in groups {
                        model.remove(group);
                        // The same owner may be given a number once more, and then it is its own.
                        believed.retain(|(_, of), _| *of != group);
                    }
                },
                1..=5 => {
                    let claimed = world.claim(&groups, owner).await;
                    for (group, row) in groups.into_iter().zip(claimed) {
                        let known = model.entry(group).or_default();
                        if known.owner != owner {
                            known.epoch += 1;
                            owner.clone_into(&mut known.owner);
                        }
                        assert_eq!((row.epoch, &row.owner), (known.epoch, &known.owner));
                        assert_eq!(row.desired, known.desired, "seed {seed}, step {step}");
                        believed.entry((owner, group)).or_default().push(row.epoch);
                    }
                },
                _ => {
                    let event = [format!("{step}")];
                    let mut writes = Vec::new();
                    for group in groups {
                        let of_owner = believed.get(&(owner, group));
                        let epoch = of_owner.and_then(|epochs| epochs.choose(&mut rng).copied());
                        writes.push(of(group, epoch.unwrap_or(1), step, &event));
                    }
                    let verdicts = world.write(owner, &writes).await;
                    for (write, verdict) in writes.iter().zip(verdicts) {
                        let known = model.get_mut(write.group);
                        let known = known
                            .filter(|known| known.epoch == write.epoch && known.owner == owner);
                        assert_eq!(verdict, known.is_some(), "seed {seed}, step {step}");
                        if let Some(known) = known {
                            known.desired = Some(step);
                            noted.push(step.to_string());
                        }
                    }
                },
            }
            let rows = world.store.scaling_rows(namespace(&world)).await;
            let rows = rows.expect("rows");
            let there: Vec<(&str, Model)> = rows
                .values()
                .map(|row| {
                    let model = Model {
                        epoch: row.epoch,
                        owner: row.owner.clone(),
                        desired: row.desired,
                    };
                    (row.group.as_str(), model)
                })
                .collect();
            let wanted: Vec<(&str, Model)> = model
                .iter()
                .map(|(group, row)| (*group, row.clone()))
                .collect();
            assert_eq!(there, wanted, "seed {seed}, step {step}");
        }
        noted.reverse();
        assert_eq!(world.events().await, noted, "seed {seed}");
    }
}
