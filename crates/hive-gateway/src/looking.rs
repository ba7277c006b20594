//! Looking at messages without taking them.

use hive_protocol::{fault::Fault, request, time, wire};
use hive_store::{
    StoreError,
    header::Header,
    peek::{Place, Seen},
};
use prost::Message as _;

use crate::core::{Gateway, reading};

impl Gateway {
    /// Looks at the unsettled messages of a group.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn peek_messages(
        &self,
        namespace: &str,
        request: wire::PeekMessagesRequest,
    ) -> Result<wire::PeekMessagesResponse, Fault> {
        reading(async move {
            let peek = request::peek(&request)?;
            let view = self.catalog.group(namespace, &peek.group).await?;
            let lanes = self.catalog.read_lanes(&view.shard).await?;
            let lanes = lanes.of_group(&view.shard, &peek.group);
            let cursor = peek.cursor.unwrap_or_default();
            let page = (u64::from(peek.limit), cursor.as_str());
            let place = peek.state.and_then(place);
            let found = match self
                .store
                .peek(&view.shard, &peek.group, &lanes, place, page)
                .await
            {
                Err(StoreError::Refused { detail }) => {
                    return Err(Fault::invalid_field("cursor", detail));
                },
                other => other?,
            };
            Ok(wire::PeekMessagesResponse {
                messages: found.seen.into_iter().map(shown).collect(),
                next_cursor: found.next,
            })
        })
        .await
    }
}

fn place(state: wire::MessageState) -> Option<Place> {
    match state {
        wire::MessageState::Unspecified => None,
        wire::MessageState::Waiting => Some(Place::Waiting),
        wire::MessageState::Leased => Some(Place::Leased),
        wire::MessageState::Ready => Some(Place::Ready),
        wire::MessageState::Delayed => Some(Place::Delayed),
        wire::MessageState::Parked => Some(Place::Parked),
        wire::MessageState::Scheduled => Some(Place::Scheduled),
    }
}

/// One message of many: that the bytes of one are gone must not hide the others.
fn shown(seen: Seen) -> wire::PeekedMessage {
    let state = match seen.place {
        Place::Waiting => wire::MessageState::Waiting,
        Place::Leased => wire::MessageState::Leased,
        Place::Ready => wire::MessageState::Ready,
        Place::Delayed => wire::MessageState::Delayed,
        Place::Parked => wire::MessageState::Parked,
        Place::Scheduled => wire::MessageState::Scheduled,
    };
    let envelope = Header::split(&seen.body).ok().map(|(_, envelope)| envelope);
    let message = envelope.and_then(|envelope| wire::Message::decode(envelope).ok());
    wire::PeekedMessage {
        state: state.into(),
        consumer_id: seen.consumer,
        deliveries: seen.deliveries,
        idle: (seen.place == Place::Leased).then(|| time::to_duration(seen.idle_ms)),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_whose_bytes_are_gone_is_shown_without_them() {
        let shown = shown(Seen {
            place: Place::Leased,
            consumer: "a".to_owned(),
            deliveries: 2,
            idle_ms: 1_000,
            body: bytes::Bytes::new(),
        });
        assert_eq!((shown.consumer_id.as_str(), shown.deliveries), ("a", 2));
        assert_eq!(shown.message, None);
    }
}
