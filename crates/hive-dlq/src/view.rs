//! Dead letters as callers see them.

use hive_protocol::{
    time::{self, to_timestamp},
    wire,
};
use hive_store::{
    header::Header,
    letters::{Attempt, Change, Content, Letter, Outcome, State},
};
use prost::Message as _;
use prost_types::Timestamp;

use crate::filter::to_wire;

fn at(ms: u64) -> Option<Timestamp> {
    (ms > 0).then(|| to_timestamp(ms.into()))
}

/// A record without what is large.
pub(crate) fn row(letter: &Letter) -> wire::DeadLetter {
    let mut shown = whole(letter);
    let last = shown.attempts.pop();
    shown.attempts = last
        .map(|last| wire::FailedAttempt {
            stack: String::new(),
            ..last
        })
        .into_iter()
        .collect();
    shown
}

fn whole(letter: &Letter) -> wire::DeadLetter {
    let (facts, state) = (&letter.facts, &letter.state);
    wire::DeadLetter {
        dlq_id: letter.id.clone(),
        message_id: facts.message_id.clone(),
        stream: facts.stream.clone(),
        group: facts.group.clone(),
        category: facts.category.to_string(),
        rule: facts.rule.clone(),
        fingerprint: facts.fingerprint.clone(),
        status: to_wire(letter.status).into(),
        deliveries: facts.deliveries,
        failures: facts.failures,
        attempts: facts.attempts.iter().map(attempt).collect(),
        dead_lettered_at: at(facts.dead_ms),
        message_type: facts.message_type.clone(),
        from_agent: facts.from_agent.clone(),
        workflow_id: facts.workflow_id.clone(),
        run_id: facts.run_id.clone(),
        task_id: facts.task_id.clone(),
        traceparent: facts.traceparent.clone(),
        strategy: state.strategy.to_string(),
        recovery_at: at(state.due_ms),
        replays: state.replays,
        automatic_replays: facts.past.automatic.saturating_add(state.automatic),
        replay_message_id: state.message_id.clone(),
        replay_outcome: outcome(state).into(),
        replay_of: facts.replay_of.clone(),
        payload_bytes: facts.payload_bytes,
        message: None,
        edited_payload: None,
        history: Vec::new(),
        undecodable: bytes::Bytes::new(),
    }
}

/// A record with everything.
pub(crate) fn full(letter: &Letter, content: &Content) -> wire::DeadLetter {
    let mut shown = with_payload(whole(letter), content);
    shown.history = content.history.iter().map(change).collect();
    shown
}

/// Adds the message.
pub(crate) fn with_payload(mut shown: wire::DeadLetter, content: &Content) -> wire::DeadLetter {
    let message = Header::split(&content.body)
        .ok()
        .and_then(|(_, envelope)| wire::Message::decode(envelope).ok());
    if message.is_none() {
        shown.undecodable = content.body.clone();
    }
    shown.message = message;
    shown.edited_payload.clone_from(&content.edited);
    shown
}

fn attempt(one: &Attempt) -> wire::FailedAttempt {
    wire::FailedAttempt {
        consumer: one.consumer.clone(),
        started_at: at(one.started_ms),
        ended_at: at(one.ended_ms),
        category: one.category.clone(),
        error_type: one.error_type.clone(),
        reason: one.reason.clone(),
        stack: one.stack.clone(),
    }
}

fn change(one: &Change) -> wire::DeadLetterChange {
    wire::DeadLetterChange {
        at: at(one.at_ms),
        status: to_wire(one.status).into(),
        by: one.by.clone(),
        why: one.why.clone(),
    }
}

fn outcome(state: &State) -> wire::ReplayOutcome {
    match state.outcome {
        Outcome::Pending if state.is_awaited() => wire::ReplayOutcome::Pending,
        Outcome::Pending | Outcome::Unknown => wire::ReplayOutcome::Unspecified,
        Outcome::Succeeded => wire::ReplayOutcome::Succeeded,
        Outcome::Failed => wire::ReplayOutcome::Failed,
    }
}

/// A span for the wire.
pub(crate) fn span(ms: u64) -> prost_types::Duration {
    time::to_duration(ms)
}

#[cfg(test)]
mod tests {
    use hive_protocol::wire::ReplayOutcome;
    use hive_store::letters::{Outcome, State};

    use super::outcome;

    #[test]
    fn a_replay_of_which_nobody_tells_is_not_pending() {
        let mut state = State {
            outcome: Outcome::Pending,
            ..State::default()
        };
        assert_eq!(outcome(&state), ReplayOutcome::Unspecified);
        state.track_key = "k".to_owned();
        assert_eq!(outcome(&state), ReplayOutcome::Pending);
    }
}
