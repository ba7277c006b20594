//! Replays of a stream's history: begun, shown and cancelled here, carried on by the coordinator
//! that owns the shard.

use hive_domain::{
    name,
    stream::Durability,
    violation::{Violations, quoted},
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{REPLAY_NAMES_MAX, REPLAY_RATE_DEFAULT, REPLAY_RATE_MAX},
    time, wire,
};
use hive_store::{
    Shard,
    control::Put,
    replays::{REPLAYS_KEPT_MAX, Replay, ReplayState},
};
use uuid::Uuid;

use crate::{
    core::{Gateway, now_ms, reading},
    groups::{TRIES, changing},
};

/// Most replays of one stream that are under way at once.
const RUNNING_MAX: usize = 10;

/// A request that passed its checks.
struct Asked {
    from_ms: u64,
    to_ms: Option<u64>,
    rate: u32,
}

impl Gateway {
    /// Begins a replay, or shows the one that its id began.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, `REPLAY_EXISTS`, `TOO_MANY_REPLAYS`, or what Redis says.
    pub async fn replay_stream(
        &self,
        namespace: &str,
        request: wire::ReplayStreamRequest,
    ) -> Result<wire::ReplayStreamResponse, Fault> {
        let asked = check(&request)?;
        let _pass = self.enter("replay_stream")?;
        let view = self.catalog.group(namespace, &request.group).await?;
        let stream = &view.stream.name;
        if *stream != request.stream {
            let rule = format!("{} reads stream `{stream}`", quoted(&request.group));
            return Err(Fault::invalid_field("group", rule));
        }
        let is_durable = view.is_durable();
        if is_durable {
            self.store.check_durable().await?;
        }
        let now = reading(async {
            self.store.read_clock().await?;
            Ok(self.store.now_ms())
        })
        .await?;
        let replay = Replay {
            id: if request.replay_id.is_empty() {
                Uuid::now_v7().to_string()
            } else {
                request.replay_id
            },
            version: 0,
            group: request.group,
            from_ms: asked.from_ms,
            to_ms: asked.to_ms.map_or(now, |to| to.min(now)),
            message_types: sorted(request.message_types),
            from_agents: sorted(request.from_agents),
            rate: asked.rate,
            state: ReplayState::Running,
            lane: String::new(),
            after: String::new(),
            next: String::new(),
            heads: None,
            missed: String::new(),
            examined: 0,
            published: 0,
            error: String::new(),
            started_ms: now_ms(),
            ended_ms: 0,
        };
        for _ in 0..TRIES {
            if let Some(known) = self.store.replay(&view.shard, &replay.id).await? {
                let is_same = known.group == replay.group
                    && known.from_ms == replay.from_ms
                    && asked
                        .to_ms
                        .is_none_or(|to| known.to_ms == to.min(known.to_ms))
                    && known.message_types == replay.message_types
                    && known.from_agents == replay.from_agents
                    && known.rate == replay.rate;
                if !is_same {
                    let text = format!("replay `{}` exists with other settings", replay.id);
                    return Err(Fault::new(Reason::ReplayExists, text));
                }
                self.stored(&view.shard, is_durable).await?;
                return Ok(wire::ReplayStreamResponse {
                    replay: Some(shown(stream, known)),
                });
            }
            let known = self.store.replays(&view.shard).await?;
            let running = known.iter().filter(|one| one.state == ReplayState::Running);
            if running.count() >= RUNNING_MAX || known.len() >= REPLAYS_KEPT_MAX {
                let text = format!(
                    "stream `{stream}` has {RUNNING_MAX} replays under way, or keeps \
                     {REPLAYS_KEPT_MAX}"
                );
                return Err(Fault::new(Reason::TooManyReplays, text));
            }
            let put = self
                .store
                .put_replay(namespace, &view.shard, &replay)
                .await?;
            if let Put::Stored(_) = put {
                self.stored(&view.shard, is_durable).await?;
                let (id, group) = (replay.id.as_str(), replay.group.as_str());
                tracing::info!(namespace, stream, group, replay = id, "replay_began");
                return Ok(wire::ReplayStreamResponse {
                    replay: Some(shown(stream, replay)),
                });
            }
        }
        Err(changing("replay", &replay.id))
    }

    /// Shows a replay.
    ///
    /// # Errors
    /// Violations, `STREAM_NOT_FOUND`, `REPLAY_NOT_FOUND`, or what Redis says.
    pub async fn get_replay(
        &self,
        namespace: &str,
        request: wire::GetReplayRequest,
    ) -> Result<wire::GetReplayResponse, Fault> {
        reading(async move {
            let (stream, id) = (&request.stream, &request.replay_id);
            let (_, _, replay) = self.known_replay(namespace, stream, id).await?;
            Ok(wire::GetReplayResponse {
                replay: Some(shown(stream, replay)),
            })
        })
        .await
    }

    /// Ends a replay that is under way.
    ///
    /// # Errors
    /// Violations, `STREAM_NOT_FOUND`, `REPLAY_NOT_FOUND`, or what Redis says.
    pub async fn cancel_replay(
        &self,
        namespace: &str,
        request: wire::CancelReplayRequest,
    ) -> Result<wire::CancelReplayResponse, Fault> {
        let _pass = self.enter("cancel_replay")?;
        let (stream, id) = (&request.stream, &request.replay_id);
        // A coordinator stores its progress many times a second.
        for _ in 0..10 * TRIES {
            let (shard, is_durable, mut replay) = self.known_replay(namespace, stream, id).await?;
            if is_durable {
                self.store.check_durable().await?;
            }
            if replay.state == ReplayState::Running {
                replay.state = ReplayState::Cancelled;
                replay.ended_ms = now_ms();
                replay.error.clear();
                let put = self.store.put_replay(namespace, &shard, &replay).await?;
                if !matches!(put, Put::Stored(_)) {
                    continue;
                }
            }
            self.stored(&shard, is_durable).await?;
            return Ok(wire::CancelReplayResponse {
                replay: Some(shown(stream, replay)),
            });
        }
        Err(changing("replay", id))
    }

    /// What was stored is on disk, where the stream promises that: also what another call stored
    /// whose answer may have been lost.
    async fn stored(&self, shard: &Shard, is_durable: bool) -> Result<(), Fault> {
        if is_durable {
            self.store.sync(shard).await?;
        }
        Ok(())
    }

    /// A replay, its shard, and whether its stream promises to have on disk what it answers.
    async fn known_replay(
        &self,
        namespace: &str,
        stream: &str,
        id: &str,
    ) -> Result<(Shard, bool, Replay), Fault> {
        let mut faults = Violations::new();
        faults.take(name::check("stream", stream));
        faults.take(name::check("replay_id", id));
        faults.into_result()?;
        let view = self.catalog.stream(namespace, stream).await?;
        let replay = self.store.replay(&view.shard, id).await?;
        let text = || format!("stream `{stream}` has no replay `{id}`");
        let replay = replay.ok_or_else(|| Fault::new(Reason::ReplayNotFound, text()))?;
        let is_durable = view.definition.settings.durability == Durability::Local;
        Ok((view.shard.clone(), is_durable, replay))
    }
}

fn check(request: &wire::ReplayStreamRequest) -> Result<Asked, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check("stream", &request.stream));
    faults.take(name::check("group", &request.group));
    faults.take(name::check_optional("replay_id", &request.replay_id));
    let mut at = |field: &str, wire: Option<&prost_types::Timestamp>| {
        let wire = wire?;
        faults
            .take(time::timestamp(field, wire))
            .map(|at| at.as_millis())
    };
    let from_ms = at("from", request.from.as_ref());
    let to_ms = at("to", request.to.as_ref());
    if let (Some(from), Some(to)) = (from_ms, to_ms)
        && from >= to
    {
        faults.push("to", "must be later than from");
    }
    for (field, names) in [
        ("message_types", &request.message_types),
        ("from_agents", &request.from_agents),
    ] {
        if names.len() > REPLAY_NAMES_MAX {
            let len = names.len();
            faults.push(
                field,
                format!("has `{len}` names and must have at most {REPLAY_NAMES_MAX}"),
            );
        }
        for (place, one) in names.iter().enumerate() {
            faults.take(name::check(&format!("{field}[{place}]"), one));
        }
    }
    if request.rate > REPLAY_RATE_MAX {
        let rate = request.rate;
        faults.push(
            "rate",
            format!("`{rate}` must be at most {REPLAY_RATE_MAX}"),
        );
    }
    faults.into_result()?;
    Ok(Asked {
        from_ms: from_ms.unwrap_or(0),
        to_ms,
        rate: match request.rate {
            0 => REPLAY_RATE_DEFAULT,
            rate => rate,
        },
    })
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

fn shown(stream: &str, replay: Replay) -> wire::StreamReplay {
    let at = |ms: u64| (ms > 0).then(|| time::to_timestamp(ms.into()));
    let state = match replay.state {
        ReplayState::Running => wire::ReplayState::Running,
        ReplayState::Done => wire::ReplayState::Done,
        ReplayState::Cancelled => wire::ReplayState::Cancelled,
        ReplayState::Failed => wire::ReplayState::Failed,
    };
    wire::StreamReplay {
        replay_id: replay.id,
        stream: stream.to_owned(),
        group: replay.group,
        from: at(replay.from_ms),
        to: at(replay.to_ms),
        message_types: replay.message_types,
        from_agents: replay.from_agents,
        rate: replay.rate,
        state: state.into(),
        examined: replay.examined,
        published: replay.published,
        error: replay.error,
        started_at: at(replay.started_ms),
        ended_at: at(replay.ended_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> wire::ReplayStreamRequest {
        wire::ReplayStreamRequest {
            stream: "s".into(),
            group: "g".into(),
            ..wire::ReplayStreamRequest::default()
        }
    }

    #[test]
    fn a_replay_without_bounds_is_of_everything_at_the_default_rate() {
        let asked = check(&request()).expect("a request");
        assert_eq!((asked.from_ms, asked.to_ms), (0, None));
        assert_eq!(asked.rate, REPLAY_RATE_DEFAULT);
    }

    #[test]
    fn every_fault_of_a_replay_is_told() {
        let at = |ms: u64| Some(time::to_timestamp(ms.into()));
        let faults = check(&wire::ReplayStreamRequest {
            from: at(2_000),
            to: at(2_000),
            message_types: vec!["t t".into()],
            from_agents: vec!["a".into(); REPLAY_NAMES_MAX + 1],
            rate: REPLAY_RATE_MAX + 1,
            ..request()
        });
        let faults = faults.err().expect("faults").to_string();
        for field in ["to", "message_types[0]", "from_agents", "rate"] {
            assert!(faults.contains(field), "{field}: {faults}");
        }
    }
}
