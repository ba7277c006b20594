//! Tracked messages, purges and replays over REST.

use hive_domain::{
    stream::{Durability, StreamDefinition, StreamSettings},
    time::Timestamp,
};
use hive_store::{Store, StoreConfig, replays::ReplayState};
use hive_testkit::redis::{Aof, RedisServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::{GROUPS, Hive, QA, STREAM, refused};

const MESSAGES: &str = "/api/v1/messages";

fn open(redis: &RedisServer) -> Store {
    let config = StoreConfig {
        url: redis.url(),
        ..StoreConfig::default()
    };
    Store::open(config).unwrap()
}

/// Sends one command without spaces in its words; gives the answer, up to 4 KiB of it.
async fn raw(hive: &Hive, command: &str) -> String {
    let mut connection = UnixStream::connect(hive.redis.socket()).await.unwrap();
    let line = format!("{command}\r\n");
    connection.write_all(line.as_bytes()).await.unwrap();
    let mut answer = [0; 4_096];
    let length = connection.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length])
        .trim_end()
        .to_owned()
}

#[tokio::test]
async fn a_tracked_message_is_followed_over_rest() {
    let hive = Hive::with_group().await;
    let message = json!({ "message_id": "m", "payload": 1, "track": true });
    hive.publish(&message).await;
    let path = format!("{MESSAGES}/m");
    let seen = hive.client.get(&path).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    let waiting = json!({ "message_id": "m", "state": "waiting", "attempts": 0 });
    assert_eq!(seen.body, waiting);
    let again = hive.client.post(&format!("{QA}/messages"), &message).await;
    refused(&again, 409, "MESSAGE_EXISTS");
    let delivery = hive.fetch(1).await.remove(0);
    assert_eq!(delivery["message"]["track"], true);
    let seen = hive
        .client
        .get(&format!("{path}/?group=qa_engineers_consumers"))
        .await;
    assert_eq!(seen.body["state"], "leased");
    assert_eq!(seen.body["consumer"], "qa_agent_1");
    let result = json!({ "passed": [1, 2.5] });
    let ack = json!([{ "lease": delivery["lease"], "action": "ack", "result": result }]);
    assert_eq!(hive.settle(&ack).await, ["ok"]);
    let seen = hive.client.get(&format!("{path}?wait_seconds=30")).await;
    assert_eq!(
        (&seen.body["state"], &seen.body["result"]),
        (&json!("acked"), &result)
    );
    assert!(seen.body["ended_at"].is_string(), "{seen:?}");
    refused(
        &hive.client.bare("DELETE", &path).await,
        409,
        "MESSAGE_OVER",
    );
}

#[tokio::test]
async fn a_message_is_cancelled_over_rest() {
    let hive = Hive::with_group().await;
    let delayed = json!({
        "message_id": "m", "payload": 1, "track": true, "delay_seconds": 60,
    });
    hive.publish(&delayed).await;
    let path = format!("{MESSAGES}/m");
    assert_eq!(hive.client.get(&path).await.body["state"], "scheduled");
    let cancelled = hive
        .client
        .bare("DELETE", &format!("{path}?reason=too%20late"))
        .await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(cancelled.body["state"], "cancelled");
    assert_eq!(cancelled.body["error"], "too late");
    assert_eq!(hive.client.get(QA).await.body["scheduled_count"], 0);
    let unknown = hive.client.get(&format!("{MESSAGES}/n")).await;
    refused(&unknown, 404, "MESSAGE_NOT_FOUND");
    let odd = hive
        .client
        .get(&format!("{path}?wait_seconds=31&group=a%20b"))
        .await;
    assert_eq!(odd.status, 422);
    assert_eq!(odd.faulty_fields(), ["group", "wait_seconds"]);
    let path = format!("{STREAM}/messages");
    let to_all = hive
        .client
        .post(&path, &json!({ "payload": 1, "track": true }))
        .await;
    refused(&to_all, 422, "INVALID_ARGUMENT");
    assert_eq!(to_all.faulty_fields(), ["track"]);
}

#[tokio::test]
async fn a_message_whose_id_others_have_too_is_cancelled_only_by_its_group() {
    let hive = Hive::with_group().await;
    for (group, stream) in [("beside", "agent_messages:qa"), ("elsewhere", "other")] {
        let group = json!({ "name": group, "stream_name": stream, "agent_type": "any" });
        let made = hive.client.post(GROUPS, &group).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let message = json!({ "message_id": "m", "payload": 1, "track": true });
    hive.publish(&message).await;
    let path = format!("{MESSAGES}/m");
    let of = |group: &str| format!("{path}?group={group}");
    for another in ["beside", "elsewhere"] {
        let seen = hive.client.get(&of(another)).await;
        refused(&seen, 404, "MESSAGE_NOT_FOUND");
        let cancelled = hive.client.bare("DELETE", &of(another)).await;
        refused(&cancelled, 404, "MESSAGE_NOT_FOUND");
    }
    let same = hive
        .client
        .post(&format!("{GROUPS}/elsewhere/messages"), &message)
        .await;
    assert_eq!(same.status, 200, "{same:?}");
    refused(&hive.client.get(&path).await, 409, "MESSAGE_AMBIGUOUS");
    let unsure = hive.client.bare("DELETE", &path).await;
    refused(&unsure, 409, "MESSAGE_AMBIGUOUS");
    let cancelled = hive.client.bare("DELETE", &of("elsewhere")).await;
    assert_eq!(cancelled.body["state"], "cancelled", "{cancelled:?}");
    let ours = hive.client.get(&of("qa_engineers_consumers")).await;
    assert_eq!(ours.body["state"], "waiting", "{ours:?}");
}

#[tokio::test]
async fn a_group_is_purged_over_rest_only_by_its_name() {
    let hive = Hive::with_group().await;
    for _ in 0..3 {
        hive.publish(&json!({ "payload": 1 })).await;
    }
    hive.fetch(1).await;
    let path = format!("{QA}/purge");
    let counted = hive.client.post(&path, &json!({ "dry_run": true })).await;
    let expected = json!({
        "dry_run": true, "purged": 3, "waiting": 2, "leased": 1, "retrying": 0, "scheduled": 0,
    });
    assert_eq!((counted.status, counted.body), (200, expected));
    for confirm in [json!({}), json!({ "confirm": "other" })] {
        let unsure = hive.client.post(&path, &confirm).await;
        refused(&unsure, 422, "INVALID_ARGUMENT");
        assert_eq!(unsure.faulty_fields(), ["confirm"]);
    }
    let confirm = json!({ "confirm": "qa_engineers_consumers" });
    let purged = hive.client.post(&path, &confirm).await;
    let expected = json!({ "dry_run": false, "purged": 3, "more": false });
    assert_eq!((purged.status, purged.body), (200, expected));
    let group = hive.client.get(QA).await.body;
    assert_eq!(
        (&group["lag"], &group["dead_total"]),
        (&json!(0), &json!(3))
    );
    let gone = hive
        .client
        .post(&format!("{GROUPS}/nobody/purge"), &confirm)
        .await;
    refused(&gone, 422, "INVALID_ARGUMENT");
}

/// How often Redis was asked to wait for its disk.
async fn waits(hive: &Hive) -> u32 {
    let stats = raw(hive, "INFO commandstats").await;
    let line = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_waitaof"));
    let calls = line.and_then(|line| line.split(['=', ',']).nth(1));
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn replays_and_purges_of_a_durable_stream_are_answered_once_they_are_on_disk() {
    let redis = RedisServer::builder().aof(Aof::Everysec).start().await;
    let hive = Hive::on(redis.unwrap()).await;
    let stream = json!({ "name": "s", "durability": "local" });
    let made = hive.client.post("/api/v1/streams", &stream).await;
    if made.status == 503 {
        // A server without WAITAOF makes no such stream.
        return refused(&made, 503, "DURABILITY_UNREACHABLE");
    }
    assert_eq!(made.status, 201, "{made:?}");
    let group = json!({ "name": "g", "stream_name": "s", "agent_type": "any" });
    let made = hive.client.post(GROUPS, &group).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = "/api/v1/streams/s/replay";
    let replay = json!({ "group": "g", "replay_id": "r" });
    for what in ["begin", "begin again", "cancel", "cancel again", "purge"] {
        let before = waits(&hive).await;
        let answer = match what {
            "begin" | "begin again" => hive.client.post(path, &replay).await,
            "purge" => {
                let confirm = json!({ "confirm": "g" });
                let path = format!("{GROUPS}/g/purge");
                hive.client.post(&path, &confirm).await
            },
            _ => hive.client.bare("DELETE", &format!("{path}/r")).await,
        };
        assert!(answer.status < 300, "{what}: {answer:?}");
        assert!(waits(&hive).await > before, "{what}");
    }
}

#[tokio::test]
async fn replays_and_purges_of_a_durable_stream_are_refused_where_nothing_reaches_the_disk() {
    let redis = RedisServer::builder().aof(Aof::Off).start().await.unwrap();
    let store = open(&redis);
    let settings = StreamSettings {
        durability: Durability::Local,
        ..StreamSettings::default()
    };
    let stream = StreamDefinition {
        name: "s".into(),
        shards: 1,
        created_at: Timestamp(0),
        version: 0,
        settings,
    };
    store.put_stream("default", &stream).await.unwrap();
    let hive = Hive::on(redis).await;
    let group = json!({ "name": "g", "stream_name": "s", "agent_type": "any" });
    let made = hive.client.post(GROUPS, &group).await;
    assert_eq!(made.status, 201, "{made:?}");
    let shard = store.shard("default", "s", 0);
    let replay = r#"{"id":"r","group":"g","from_ms":0,"to_ms":1,"message_types":[],"from_agents":[],
        "rate":1,"state":"running","lane":"","after":"","examined":0,"published":0,"error":"",
        "started_ms":0,"ended_ms":0}"#;
    let row = replay.replace(['\n', ' '], "").replace('"', "\\\"");
    let stored = raw(&hive, &format!("HSET {} r \"1 {row}\"", shard.replays())).await;
    assert_eq!(stored, ":1");
    let path = "/api/v1/streams/s/replay";
    let begun = hive.client.post(path, &json!({ "group": "g" })).await;
    refused(&begun, 503, "DURABILITY_UNREACHABLE");
    let cancelled = hive.client.bare("DELETE", &format!("{path}/r")).await;
    refused(&cancelled, 503, "DURABILITY_UNREACHABLE");
    let confirm = json!({ "confirm": "g" });
    let purged = hive
        .client
        .post(&format!("{GROUPS}/g/purge"), &confirm)
        .await;
    refused(&purged, 503, "DURABILITY_UNREACHABLE");
    let replays = store.replays(&shard).await.unwrap();
    assert_eq!(replays.len(), 1);
    assert_eq!(replays[0].state, ReplayState::Running, "nothing was done");
}

#[tokio::test]
async fn a_dry_run_of_a_purge_counts_the_delayed_messages_that_a_purge_takes() {
    let hive = Hive::with_group().await;
    let delayed = json!({ "payload": 1, "delay_seconds": 60 });
    hive.publish(&delayed).await;
    let to_all = hive
        .client
        .post(&format!("{STREAM}/messages"), &delayed)
        .await;
    assert_eq!(to_all.status, 200, "{to_all:?}");
    assert_eq!(hive.client.get(QA).await.body["scheduled_count"], 2);
    let path = format!("{QA}/purge");
    let counted = hive.client.post(&path, &json!({ "dry_run": true })).await;
    assert_eq!(
        (&counted.body["purged"], &counted.body["scheduled"]),
        (&json!(1), &json!(1))
    );
    let confirm = json!({ "confirm": "qa_engineers_consumers" });
    let purged = hive.client.post(&path, &confirm).await;
    assert_eq!(purged.body["purged"], 1, "{purged:?}");
    assert_eq!(hive.client.get(QA).await.body["scheduled_count"], 1);
}

#[tokio::test]
async fn a_purge_takes_delayed_messages_that_come_due_meanwhile() {
    let hive = Hive::with_group().await;
    let message = json!({ "payload": 1, "delay_seconds": 3_600 });
    let batch = json!({ "messages": vec![message; 1_000] });
    for _ in 0..5 {
        let path = format!("{QA}/messages");
        let published = hive.client.post(&path, &batch).await;
        assert_eq!(published.status, 200, "{published:?}");
    }
    let store = open(&hive.redis);
    let shard = store.shard("default", "agent_messages:qa", 0);
    let key = shard.scheduled();
    let due = raw(
        &hive,
        &format!("ZUNIONSTORE {key} 1 {key} WEIGHTS 0.000001"),
    )
    .await;
    assert_eq!(due, ":5000");
    let groups = store.groups_on_shard(&shard).await.unwrap();
    let comes_due = async {
        loop {
            let lanes = store.lanes(&shard).await.unwrap();
            let due = store.due_scheduled(&shard, &lanes, &groups).await.unwrap();
            if due.moved == 0 && !due.lanes_changed {
                break;
            }
        }
    };
    let confirm = json!({ "confirm": "qa_engineers_consumers" });
    let path = format!("{QA}/purge");
    let purge = hive.client.post(&path, &confirm);
    let (purged, ()) = tokio::join!(purge, comes_due);
    assert_eq!(purged.body["purged"], 5_000, "{purged:?}");
    let group = hive.client.get(QA).await.body;
    assert_eq!(
        (&group["lag"], &group["scheduled_count"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn a_replay_is_begun_shown_and_cancelled_over_rest() {
    let hive = Hive::with_group().await;
    let path = format!("{STREAM}/replay");
    let body = json!({
        "group": "qa_engineers_consumers", "replay_id": "r", "message_types": ["b", "a"],
        "from": "2026-01-31T12:00:00Z", "rate": 7,
    });
    let begun = hive.client.post(&path, &body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    // No coordinator runs here: it stays as it began.
    let shown = hive.client.get(&format!("{path}/r")).await;
    assert_eq!((shown.status, &shown.body), (200, &begun.body));
    assert_eq!(shown.body["state"], "running");
    assert_eq!(shown.body["message_types"], json!(["a", "b"]));
    assert_eq!(
        (&shown.body["rate"], &shown.body["published"]),
        (&json!(7), &json!(0))
    );
    let other: Value = json!({ "group": "qa_engineers_consumers", "replay_id": "r" });
    refused(&hive.client.post(&path, &other).await, 409, "REPLAY_EXISTS");
    let cancelled = hive.client.bare("DELETE", &format!("{path}/r")).await;
    assert_eq!(
        (cancelled.status, &cancelled.body["state"]),
        (200, &json!("cancelled"))
    );
    let unknown = hive.client.get(&format!("{path}/x")).await;
    refused(&unknown, 404, "REPLAY_NOT_FOUND");
    let group = json!({
        "name": "elsewhere", "stream_name": "other", "agent_type": "any",
    });
    hive.client.post(GROUPS, &group).await;
    let elsewhere = hive
        .client
        .post(&path, &json!({ "group": "elsewhere" }))
        .await;
    refused(&elsewhere, 422, "INVALID_ARGUMENT");
    assert_eq!(elsewhere.faulty_fields(), ["group"]);
    for number in 0..11 {
        let body = json!({ "group": "qa_engineers_consumers" });
        let begun = hive.client.post(&path, &body).await;
        if number < 10 {
            assert_eq!(begun.status, 202, "{begun:?}");
        } else {
            refused(&begun, 429, "TOO_MANY_REPLAYS");
        }
    }
}
