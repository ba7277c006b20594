//! Tracked messages: where one stands, and its cancellation.
//!
//! An id does not say where its message is. A caller who names the group has one shard looked at;
//! for others all streams of the namespace are asked, a hundred in one round trip. An id is a
//! message's own within one stream alone: where several know it, the group must be named, or the
//! wrong one would be shown, and cancelled.

use std::time::{Duration, Instant};

use hive_domain::{name, stream::Durability, violation::Violations};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::WAIT_MS_MAX,
    outcome::cut_reason,
    time, wire,
    words::tracked_state,
};
use hive_store::{
    Shard,
    tasks::{Resolved, TaskOutcome},
    tracked::{self, End, Given, Tracked, tracking_key},
};

use crate::core::{Gateway, reading};

/// A waiting call looks again after so long, whatever it hears.
const POLL: Duration = Duration::from_secs(1);

impl Gateway {
    /// Shows where a tracked message stands, and waits for its end if asked to.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, `MESSAGE_NOT_FOUND`, `MESSAGE_AMBIGUOUS`, or what Redis says.
    pub async fn get_message(
        &self,
        namespace: &str,
        request: wire::GetMessageRequest,
    ) -> Result<wire::GetMessageResponse, Fault> {
        let mut faults = Violations::new();
        check(&request.message_id, &request.group, &mut faults);
        let wait = time::optional_duration_ms("wait", request.wait.as_ref(), WAIT_MS_MAX);
        let wait_ms = faults.take(wait).flatten().unwrap_or(0);
        faults.into_result()?;
        let _pass = self.enter("get_message")?;
        let id = request.message_id.as_str();
        let (shard, _) = reading(self.place_of(namespace, &request.group, id)).await?;
        let end = Instant::now() + Duration::from_millis(wait_ms);
        // Before the look: what ends during it must not be missed.
        let bell = self.bells.listen_to(&shard.outcomes(), &tracking_key(id));
        loop {
            let message = reading(self.look_up(&shard, &request.group, id)).await?;
            let left = end.saturating_duration_since(Instant::now());
            if message.ended_at.is_some() || left.is_zero() || self.shutdown.is_draining() {
                return Ok(wire::GetMessageResponse {
                    message: Some(message),
                });
            }
            // Time passed, or it rang: both mean to look again.
            let _either = tokio::time::timeout(POLL.min(left), bell.heard()).await;
        }
    }

    /// Ends a tracked message that is not settled.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, `MESSAGE_NOT_FOUND`, `MESSAGE_AMBIGUOUS`, `MESSAGE_OVER`, or
    /// what Redis says.
    pub async fn cancel_message(
        &self,
        namespace: &str,
        request: wire::CancelMessageRequest,
    ) -> Result<wire::CancelMessageResponse, Fault> {
        let mut faults = Violations::new();
        check(&request.message_id, &request.group, &mut faults);
        faults.into_result()?;
        let _pass = self.enter("cancel_message")?;
        let id = request.message_id.as_str();
        let place = reading(self.place_of(namespace, &request.group, id)).await?;
        let (shard, durable) = place;
        // One that is no longer known must not get an end.
        self.look_up(&shard, &request.group, id).await?;
        let reason = cut_reason(request.reason);
        let cancelling = self.store.cancel_tracked(&shard, id, &reason, durable);
        let was = match cancelling.await? {
            Resolved::Ended { .. } | Resolved::Already(TaskOutcome::Cancelled) => None,
            Resolved::Already(outcome) => Some(outcome),
        };
        let message = self.look_up(&shard, "", id).await?;
        match was {
            // A group that was deleted or purged has cancelled it before.
            Some(_) if message.state() != wire::TrackedState::Cancelled => {
                let state = tracked_state(message.state());
                let text = format!("message `{id}` is settled already: {state}");
                Err(Fault::new(Reason::MessageOver, text))
            },
            Some(_) | None => Ok(wire::CancelMessageResponse {
                message: Some(message),
            }),
        }
    }

    /// Where a message is, and whether its stream promises to have on disk what it answers.
    async fn place_of(
        &self,
        namespace: &str,
        group: &str,
        id: &str,
    ) -> Result<(Shard, bool), Fault> {
        let streams = if group.is_empty() {
            self.store.streams(namespace).await?
        } else {
            vec![self.catalog.group(namespace, group).await?.stream.clone()]
        };
        let shard = |name: &str| self.store.shard(namespace, name, 0);
        let shards: Vec<Shard> = streams.iter().map(|stream| shard(&stream.name)).collect();
        let places = self.store.shards_of_tracked(&shards, id).await?;
        let all = shards.into_iter().zip(streams).enumerate();
        let mut found = all.filter(|(place, _)| places.contains(place));
        let (_, (shard, stream)) = found.next().ok_or_else(|| not_found(id))?;
        if let Some((_, (_, other))) = found.next() {
            let count = places.len();
            let (first, second) = (&stream.name, &other.name);
            let text = format!(
                "message `{id}` is known in {count} streams, `{first}` and `{second}` among them: \
                 name its group"
            );
            return Err(Fault::new(Reason::MessageAmbiguous, text));
        }
        Ok((shard, stream.settings.durability == Durability::Local))
    }

    async fn look_up(
        &self,
        shard: &Shard,
        group: &str,
        id: &str,
    ) -> Result<wire::TrackedMessage, Fault> {
        let tracked = self.store.tracked(shard, (group, id)).await?;
        tracked
            .map(|tracked| shown(id, tracked))
            .ok_or_else(|| not_found(id))
    }
}

fn check(message_id: &str, group: &str, faults: &mut Violations) {
    faults.take(name::check("message_id", message_id));
    faults.take(name::check_optional("group", group));
}

fn not_found(id: &str) -> Fault {
    let text = format!("message `{id}` is not tracked, or its outcome is no longer kept");
    Fault::new(Reason::MessageNotFound, text)
}

fn shown(id: &str, tracked: Tracked) -> wire::TrackedMessage {
    use wire::TrackedState as State;
    let open = |state: State, attempts: u32, consumer_id: String| wire::TrackedMessage {
        message_id: id.to_owned(),
        state: state.into(),
        attempts,
        consumer_id,
        ..wire::TrackedMessage::default()
    };
    match tracked {
        Tracked::Scheduled => open(State::Scheduled, 0, String::new()),
        Tracked::Waiting { failures: 0 } => open(State::Waiting, 0, String::new()),
        Tracked::Waiting { failures } => open(State::Retrying, failures, String::new()),
        Tracked::Leased { consumer, failures } => {
            open(State::Leased, failures.saturating_add(1), consumer)
        },
        Tracked::Ended(end) => {
            let (state, given) = read_end(&end);
            let (result, error) = match given {
                Given::Result(result) => (result, String::new()),
                Given::NotKept(error) => (bytes::Bytes::new(), error),
            };
            wire::TrackedMessage {
                result,
                error,
                ended_at: Some(time::to_timestamp(end.at_ms.into())),
                ..open(state, end.attempts, end.consumer)
            }
        },
    }
}

/// What an end means for whoever published: its state, and what was given, or why it came so.
fn read_end(end: &End) -> (wire::TrackedState, Given) {
    let said = || Given::NotKept(String::from_utf8_lossy(&end.detail).into_owned());
    match end.outcome {
        TaskOutcome::Succeeded => (wire::TrackedState::Acked, tracked::given(&end.detail)),
        TaskOutcome::Cancelled => (wire::TrackedState::Cancelled, said()),
        TaskOutcome::DeadLettered => {
            // What a consumer says is its own word, also where it is one of ours.
            let state = match (end.consumer.as_str(), &*end.detail) {
                ("", b"expired") => wire::TrackedState::Expired,
                ("", b"cancelled") => wire::TrackedState::Cancelled,
                _ => wire::TrackedState::Dead,
            };
            (state, said())
        },
        // No tracked message ends so.
        TaskOutcome::Failed | TaskOutcome::TimedOut | TaskOutcome::Suspended => {
            (wire::TrackedState::Dead, said())
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn ended(outcome: TaskOutcome, detail: &'static str) -> wire::TrackedMessage {
        let end = End {
            outcome,
            consumer: "a".into(),
            attempts: 2,
            detail: Bytes::from_static(detail.as_bytes()),
            at_ms: 1_000,
        };
        shown("m", Tracked::Ended(end))
    }

    #[test]
    fn an_end_says_what_it_means_for_the_publisher() {
        use wire::TrackedState as State;
        for (outcome, detail, state, result, error) in [
            (TaskOutcome::Succeeded, "r42", State::Acked, "42", ""),
            (TaskOutcome::Succeeded, "", State::Acked, "", ""),
            (
                TaskOutcome::Succeeded,
                "etoo large",
                State::Acked,
                "",
                "too large",
            ),
            (
                TaskOutcome::DeadLettered,
                "timeout: slow",
                State::Dead,
                "",
                "timeout: slow",
            ),
            (
                TaskOutcome::Cancelled,
                "no more",
                State::Cancelled,
                "",
                "no more",
            ),
        ] {
            let shown = ended(outcome, detail);
            assert_eq!(shown.state(), state, "{detail}");
            assert_eq!((&*shown.result, &*shown.error), (result.as_bytes(), error));
            assert!(shown.ended_at.is_some());
        }
    }

    #[test]
    fn only_what_no_consumer_said_is_expired_or_cancelled() {
        use wire::TrackedState as State;
        for (consumer, detail, state) in [
            ("", "expired", State::Expired),
            ("", "cancelled", State::Cancelled),
            ("a", "expired", State::Dead),
            ("a", "cancelled", State::Dead),
        ] {
            let end = End {
                outcome: TaskOutcome::DeadLettered,
                consumer: consumer.into(),
                attempts: 1,
                detail: Bytes::from_static(detail.as_bytes()),
                at_ms: 1_000,
            };
            let shown = shown("m", Tracked::Ended(end));
            assert_eq!(shown.state(), state, "{detail} by `{consumer}`");
            assert_eq!(shown.error, detail);
        }
    }

    #[test]
    fn a_failed_attempt_makes_a_waiting_message_a_retrying_one() {
        let waiting = shown("m", Tracked::Waiting { failures: 0 });
        assert_eq!(waiting.state(), wire::TrackedState::Waiting);
        let retrying = shown("m", Tracked::Waiting { failures: 2 });
        let state = wire::TrackedState::Retrying;
        assert_eq!((retrying.state(), retrying.attempts), (state, 2));
    }
}
