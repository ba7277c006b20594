//! Streams: creating, showing, changing, deleting.
//!
//! A stream is made by the first group that reads it, or by itself, to take messages before that.
//! How its end is decided and carried out stands in `hive-store/src/streams.rs`.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use hive_domain::{
    group::GroupDefinition,
    name,
    stream::{Durability, StreamDefinition, StreamSettings},
};
use hive_protocol::{
    convert,
    fault::{Fault, Reason},
    wire,
};
use hive_store::{
    LaneRef,
    control::Put,
    streams::{Closing, Ensured, Held},
};

use crate::{
    core::{Gateway, now_ms, reading},
    groups::{TRIES, changing, too_many},
};

/// Streams or groups whose figures are read at the same time for a list: each is a few round trips.
pub(crate) const LISTED_TOGETHER: usize = 32;

impl Gateway {
    /// Creates a stream.
    ///
    /// # Errors
    /// Violations, `STREAM_EXISTS` with the difference, `DURABILITY_UNREACHABLE`, or what Redis
    /// says.
    pub async fn create_stream(
        &self,
        namespace: &str,
        request: wire::CreateStreamRequest,
    ) -> Result<wire::CreateStreamResponse, Fault> {
        let asked = convert::create_stream(&request, now_ms().into())?;
        let _pass = self.enter("create_stream")?;
        let (stream, created) = self.make_stream(namespace, &asked).await?;
        if !created {
            told_apart(&stream, &stream.difference(&asked))?;
        }
        let stream = self.shown_stream(namespace, &stream).await?;
        Ok(wire::CreateStreamResponse {
            stream: Some(stream),
            created,
        })
    }

    /// Makes the stream of a new group where it does not exist; where it does, it must have the
    /// limits that the request names.
    ///
    /// # Errors
    /// As [`Gateway::create_stream`].
    pub(crate) async fn make_stream_of_group(
        &self,
        namespace: &str,
        group: &GroupDefinition,
        request: &wire::CreateGroupRequest,
    ) -> Result<(), Fault> {
        let asked = StreamDefinition {
            name: group.stream.clone(),
            shards: group.shards,
            created_at: group.created_at,
            version: 0,
            settings: convert::stream_of_group(&StreamSettings::default(), request)?,
        };
        let (stream, created) = self.make_stream(namespace, &asked).await?;
        if !created {
            let asked = convert::stream_of_group(&stream.settings, request)?;
            told_apart(&stream, &stream.settings.difference(&asked))?;
        }
        Ok(())
    }

    /// The stream of this name, open for messages and groups; true when it was made now.
    async fn make_stream(
        &self,
        namespace: &str,
        asked: &StreamDefinition,
    ) -> Result<(StreamDefinition, bool), Fault> {
        self.check_durability(&asked.settings)?;
        match self.store.ensure_stream(namespace, asked).await? {
            Ensured::There(stream, created) => {
                if created {
                    self.catalog.forget_stream(namespace, &stream.name);
                }
                Ok((stream, created))
            },
            Ensured::Conflict => Err(changing("stream", &asked.name)),
            Ensured::Full => Err(too_many("streams")),
        }
    }

    /// Deletes a stream that holds nothing but settled messages.
    ///
    /// # Errors
    /// A violation, `STREAM_NOT_FOUND`, `STREAM_NOT_EMPTY` with the counts, or what Redis says.
    pub async fn delete_stream(
        &self,
        namespace: &str,
        request: wire::DeleteStreamRequest,
    ) -> Result<wire::DeleteStreamResponse, Fault> {
        name::check("name", &request.name)?;
        let _pass = self.enter("delete_stream")?;
        let name = &request.name;
        let definition = self.store.stream(namespace, name).await?;
        let definition = definition.ok_or_else(|| Fault::no_stream(name))?;
        // Also a group that its shard does not have yet, or not any more.
        let groups = self.store.groups(namespace).await?;
        let readers = groups.iter().filter(|group| group.stream == *name).count();
        if readers > 0 {
            let held = Held {
                groups: readers as u64,
                ..Held::default()
            };
            return Err(not_empty(name, held));
        }
        let shard = self.store.shard(namespace, name, 0);
        let closing = self
            .store
            .close_on_shard(&shard, definition.created_at)
            .await?;
        if let Closing::Filled(held) = closing {
            return Err(not_empty(name, held));
        }
        // What became of its tracked messages goes with it; nothing is added any more.
        self.store
            .forget_outcomes(&shard, Duration::ZERO, u32::MAX)
            .await?;
        let put = self.store.remove_stream(namespace, &definition).await?;
        self.catalog.forget_stream(namespace, name);
        match put {
            Put::Stored(_) => Ok(wire::DeleteStreamResponse {}),
            Put::Conflict | Put::Full => Err(changing("stream", name)),
        }
    }

    fn check_durability(&self, settings: &StreamSettings) -> Result<(), Fault> {
        if settings.durability == Durability::Local && !self.store.can_be_durable() {
            return Err(Fault::new(
                Reason::DurabilityUnreachable,
                "durability `local` needs a Redis with WAITAOF or `appendfsync always`",
            ));
        }
        Ok(())
    }

    /// Shows one stream.
    ///
    /// # Errors
    /// `STREAM_NOT_FOUND`, or what Redis says.
    pub async fn get_stream(
        &self,
        namespace: &str,
        request: wire::GetStreamRequest,
    ) -> Result<wire::GetStreamResponse, Fault> {
        reading(async move {
            name::check("name", &request.name)?;
            let definition = self.store.stream(namespace, &request.name).await?;
            let definition = definition.ok_or_else(|| Fault::no_stream(&request.name))?;
            Ok(wire::GetStreamResponse {
                stream: Some(self.shown_stream(namespace, &definition).await?),
            })
        })
        .await
    }

    /// Shows all streams of the namespace, by name.
    ///
    /// # Errors
    /// What Redis says.
    pub async fn list_streams(
        &self,
        namespace: &str,
        _request: wire::ListStreamsRequest,
    ) -> Result<wire::ListStreamsResponse, Fault> {
        reading(async move {
            let definitions = self.store.streams(namespace).await?;
            let shown = definitions.into_iter().map(|definition| {
                async move { self.shown_stream(namespace, &definition).await }.boxed()
            });
            let streams = futures_util::stream::iter(shown)
                .buffered(LISTED_TOGETHER)
                .try_collect()
                .await?;
            Ok(wire::ListStreamsResponse { streams })
        })
        .await
    }

    async fn shown_stream(
        &self,
        namespace: &str,
        definition: &StreamDefinition,
    ) -> Result<wire::Stream, Fault> {
        let shard = self.store.shard(namespace, &definition.name, 0);
        let groups = self.store.groups_on_shard(&shard).await?;
        // Read now: a message in a lane that is not known yet would be missing.
        let lanes = self.catalog.read_lanes(&shard).await?;
        let entries = self.store.entries(&shard, &lanes.all).await?;
        let is_held = |lane: &&LaneRef| lane.is_held();
        let held: Vec<LaneRef> = lanes.all.iter().filter(is_held).cloned().collect();
        let held = self.store.entries(&shard, &held).await?;
        let dead = self.store.dead_count(&shard).await?;
        Ok(convert::stream(definition, groups, (entries, held), dead))
    }

    /// Changes limits of a stream.
    ///
    /// # Errors
    /// Violations, `STREAM_NOT_FOUND`, `DURABILITY_UNREACHABLE`, or what Redis says.
    pub async fn update_stream(
        &self,
        namespace: &str,
        request: wire::UpdateStreamRequest,
    ) -> Result<wire::UpdateStreamResponse, Fault> {
        name::check("name", &request.name)?;
        let _pass = self.enter("update_stream")?;
        for _ in 0..TRIES {
            let definition = self.store.stream(namespace, &request.name).await?;
            let mut definition = definition.ok_or_else(|| Fault::no_stream(&request.name))?;
            definition.settings =
                convert::update_stream(&definition.settings, request.settings.as_ref())?;
            self.check_durability(&definition.settings)?;
            if let Put::Stored(version) = self.store.put_stream(namespace, &definition).await? {
                definition.version = version;
                self.catalog.forget_stream(namespace, &definition.name);
                let stream = self.shown_stream(namespace, &definition).await?;
                return Ok(wire::UpdateStreamResponse {
                    stream: Some(stream),
                });
            }
        }
        Err(changing("stream", &request.name))
    }
}

/// Refuses what exists with other settings.
fn told_apart(stream: &StreamDefinition, difference: &[String]) -> Result<(), Fault> {
    if difference.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        Reason::StreamExists,
        format!(
            "stream `{}` exists with other settings: {}",
            stream.name,
            difference.join(", ")
        ),
    ))
}

/// Refuses to delete what is still used.
fn not_empty(stream: &str, held: Held) -> Fault {
    let Held {
        groups,
        buffered,
        held_for_consumers,
        scheduled,
        dead_letters,
    } = held;
    let advice = if groups > 0 {
        "delete its groups first"
    } else if buffered + held_for_consumers + scheduled > 0 {
        "a group that reads it gets what waits"
    } else {
        "they must be taken first"
    };
    Fault::new(
        Reason::StreamNotEmpty,
        format!(
            "stream `{stream}` is in use: groups `{groups}`, buffered messages at least \
             `{buffered}`, held for consumers `{held_for_consumers}`, scheduled `{scheduled}`, \
             dead letters `{dead_letters}`; {advice}"
        ),
    )
}
