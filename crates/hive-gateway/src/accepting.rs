//! What a gateway remembers of streams and groups, and how it writes them back after a loss.
//!
//! When the data in Redis is gone, its definitions are too. Every gateway reads all of them every
//! two seconds while the data is what it knew, so that any one that ran before the loss can restore
//! them when an operator accepts it. Messages are not restored: nobody has them.
//!
//! Never remembered: what was read when the data was already another. So the nonce is looked at
//! behind every reading, and a gateway that started after the loss remembers nothing.
//!
//! Definitions go in before the loss is accepted, past the guard that holds up everything else:
//! nobody finds his group missing in between. What is there already stays as it is. Each step may
//! be taken twice, so a call that was cut off is made again.

use std::{sync::Arc, time::Duration};

use hive_domain::{
    group::{GroupDefinition, GroupState, Start},
    stream::StreamDefinition,
};
use hive_protocol::{fault::Fault, wire};
use hive_store::{Store, StoreError};
use parking_lot::Mutex;

use crate::core::Gateway;

/// How old what is remembered may be.
const EVERY: Duration = Duration::from_secs(2);

/// The definitions of one namespace.
#[derive(Debug, Clone)]
struct Definitions {
    namespace: String,
    streams: Vec<StreamDefinition>,
    groups: Vec<GroupDefinition>,
}

/// All definitions as they were last read.
#[derive(Debug, Default)]
pub struct Memory {
    all: Mutex<Arc<Vec<Definitions>>>,
}

/// Reads the definitions again and again until the gateway stops.
pub async fn remember(gateway: Arc<Gateway>) {
    let mut pace = tokio::time::interval(EVERY);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = pace.tick() => {},
            () = gateway.shutdown.stopped() => return,
        }
        match read(&gateway.store).await {
            Ok(all) => *gateway.memory.all.lock() = Arc::new(all),
            Err(error) => tracing::debug!(%error, "definitions_not_read"),
        }
    }
}

async fn read(store: &Store) -> Result<Vec<Definitions>, StoreError> {
    let mut all = Vec::new();
    for namespace in store.namespaces().await? {
        all.push(Definitions {
            streams: store.streams(&namespace).await?,
            groups: store.groups(&namespace).await?,
            namespace,
        });
    }
    store.check_dataset().await?;
    Ok(all)
}

impl Gateway {
    /// Shows whether the data in Redis is another than was known; unless asked to look only, writes
    /// back what is remembered of streams and groups and accepts the loss.
    ///
    /// # Errors
    /// What Redis says; the same call goes on then.
    pub async fn accept_loss(
        &self,
        _namespace: &str,
        request: wire::AcceptLossRequest,
    ) -> Result<wire::AcceptLossResponse, Fault> {
        let _pass = self.enter("accept_loss")?;
        match self.store.check_dataset().await {
            Ok(()) | Err(StoreError::Dataset { .. }) => {},
            Err(error) => return Err(error.into()),
        }
        let mut answer = wire::AcceptLossResponse {
            loss: self.store.dataset_loss().unwrap_or_default(),
            ..wire::AcceptLossResponse::default()
        };
        let all = self.memory.all.lock().clone();
        for known in all.iter() {
            let name = |name: &String| format!("{}/{name}", known.namespace);
            let streams = known.streams.iter();
            answer.streams.extend(streams.map(|one| name(&one.name)));
            let groups = known.groups.iter().filter(|group| is_kept(group));
            answer.groups.extend(groups.map(|one| name(&one.name)));
        }
        if request.look_only || answer.loss.is_empty() {
            return Ok(answer);
        }
        let store = self.store.past_guard();
        for known in all.iter() {
            write_back(&store, known).await?;
        }
        answer.accepted = self.store.accept_loss().await?;
        let (streams, groups) = (answer.streams.len(), answer.groups.len());
        let loss = answer.loss.as_str();
        tracing::warn!(loss, streams, groups, "loss_accepted");
        Ok(answer)
    }
}

/// A group whose deletion had begun is gone with its messages: that is its end.
fn is_kept(group: &GroupDefinition) -> bool {
    match group.state {
        GroupState::Creating | GroupState::Active | GroupState::Paused => true,
        GroupState::Deleting => false,
    }
}

async fn write_back(store: &Store, known: &Definitions) -> Result<(), StoreError> {
    let namespace = known.namespace.as_str();
    // Where the data that is there knows of their end, they stay deleted.
    let mut closed = Vec::new();
    for stream in &known.streams {
        let mut stream = stream.clone();
        stream.version = 0;
        let shard = store.shard(namespace, &stream.name, 0);
        if store.open_on_shard(&shard, stream.created_at).await? {
            store.put_stream(namespace, &stream).await?;
        } else {
            closed.push(stream.name);
        }
    }
    let groups = known.groups.iter().filter(|group| is_kept(group));
    for group in groups.filter(|group| !closed.contains(&group.stream)) {
        let mut group = group.clone();
        group.version = 0;
        store.put_group(namespace, &group).await?;
        // What is there now decides, ours or not.
        let Some(mut stored) = store.group(namespace, &group.name).await? else {
            continue;
        };
        if !is_kept(&stored) {
            continue;
        }
        // Whatever the data holds for it, it gets: nothing tells how far it had come.
        stored.start = Start::Earliest;
        for index in 0..stored.shards {
            let shard = store.shard(namespace, &stored.stream, index);
            store.create_on_shard(&shard, &stored).await?;
            if stored.state == GroupState::Paused {
                store.set_state_on_shard(&shard, &stored).await?;
            }
        }
    }
    Ok(())
}
