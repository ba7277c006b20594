//! The unary calls by name, each with its own answer to the question whether it may be repeated.

use std::time::Duration;

use hive_protocol::wire::{
    AcceptLossRequest, AcceptLossResponse, AddConsumerRequest, AddConsumerResponse,
    CancelMessageRequest, CancelMessageResponse, CancelReplayRequest, CancelReplayResponse,
    CreateGroupRequest, CreateGroupResponse, CreateStreamRequest, CreateStreamResponse,
    DeleteGroupRequest, DeleteGroupResponse, DeleteStreamRequest, DeleteStreamResponse,
    FetchRequest, FetchResponse, GetGroupRequest, GetMessageRequest, GetMessageResponse,
    GetReplayRequest, GetReplayResponse, GetStreamRequest, Group, ListBlockedKeysRequest,
    ListBlockedKeysResponse, ListConsumersRequest, ListConsumersResponse, ListGroupsRequest,
    ListGroupsResponse, ListStreamsRequest, ListStreamsResponse, PauseGroupRequest,
    PeekMessagesRequest, PeekMessagesResponse, PublishBatchRequest, PublishBatchResponse,
    PublishRequest, PublishResponse, PurgeGroupRequest, PurgeGroupResponse, RemoveConsumerRequest,
    RemoveConsumerResponse, ReplayStreamRequest, ReplayStreamResponse, ResumeGroupRequest,
    SettleRequest, SettleResponse, StatsRequest, StatsResponse, Stream, UnblockKeyRequest,
    UnblockKeyResponse, UpdateGroupRequest, UpdateStreamRequest,
};
use uuid::Uuid;

use super::{CallError, Client, Repeat};

/// One method per call: its documentation, name, request, answer, whether it repeats, its service.
macro_rules! calls {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident($request:ty) -> $answer:ty, $repeat:ident, $service:ident;
    )+) => {
        $(
            $(#[doc = $doc])+
            ///
            /// # Errors
            /// When a gateway refuses it, or none answers in time.
            pub async fn $name(&self, request: $request) -> Result<$answer, CallError> {
                self.call(request, Repeat::$repeat, |gateway, request| async move {
                    gateway.$service().$name(request).await
                })
                .await
            }
        )+
    };
}

pub(crate) use calls;

impl Client {
    calls! {
        /// Creates a group, and its stream where that does not exist.
        create_group(CreateGroupRequest) -> CreateGroupResponse, Safe, groups;
        /// Shows all groups of the namespace.
        list_groups(ListGroupsRequest) -> ListGroupsResponse, Safe, groups;
        /// Deletes a group. A repetition after a lost answer may say that there is none.
        delete_group(DeleteGroupRequest) -> DeleteGroupResponse, Safe, groups;
        /// Shows the figures of a group, and what it did minute by minute.
        stats(StatsRequest) -> StatsResponse, Safe, groups;
        /// Shows ordering keys that wait for an operator behind a dead letter.
        list_blocked_keys(ListBlockedKeysRequest) -> ListBlockedKeysResponse, Safe, groups;
        /// Lets such a key go on. A repetition after a lost answer may say that none was blocked.
        unblock_key(UnblockKeyRequest) -> UnblockKeyResponse, Safe, groups;
        /// Shows the members of a group.
        list_consumers(ListConsumersRequest) -> ListConsumersResponse, Safe, groups;
        /// Registers a pull consumer.
        add_consumer(AddConsumerRequest) -> AddConsumerResponse, Safe, groups;
        /// Moves the unsettled messages of a group to the dead letters, or counts them. A
        /// repetition after a lost answer answers what was left.
        purge_group(PurgeGroupRequest) -> PurgeGroupResponse, Safe, groups;
        /// Removes a member. A repetition after a lost answer may say that there is none.
        remove_consumer(RemoveConsumerRequest) -> RemoveConsumerResponse, Safe, groups;
        /// Creates a stream, for messages that come before its first group.
        create_stream(CreateStreamRequest) -> CreateStreamResponse, Safe, streams;
        /// Deletes a stream that holds nothing. A repetition after a lost answer may say that there
        /// is none.
        delete_stream(DeleteStreamRequest) -> DeleteStreamResponse, Safe, streams;
        /// Shows all streams of the namespace.
        list_streams(ListStreamsRequest) -> ListStreamsResponse, Safe, streams;
        /// Shows whether Redis lost the data that the system knew, and accepts the loss.
        accept_loss(AcceptLossRequest) -> AcceptLossResponse, Safe, streams;
        /// Settles deliveries of a client without streams.
        settle(SettleRequest) -> SettleResponse, Safe, messaging;
        /// Looks at the unsettled messages of a group without taking any.
        peek_messages(PeekMessagesRequest) -> PeekMessagesResponse, Safe, messaging;
        /// Ends a tracked message that is not settled.
        cancel_message(CancelMessageRequest) -> CancelMessageResponse, Safe, messaging;
        /// Shows how far a replay of a stream's history is.
        get_replay(GetReplayRequest) -> GetReplayResponse, Safe, messaging;
        /// Ends a replay of a stream's history.
        cancel_replay(CancelReplayRequest) -> CancelReplayResponse, Safe, messaging;
    }

    /// Publishes one message. It is repeated after a lost answer only when it carries an
    /// idempotency key or a producer's sequence; a [`crate::Publisher`] sees to that by itself.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time: then it may be stored all the same.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, CallError> {
        let key = request.message.as_ref().map(|it| &it.idempotency_key);
        let is_keyed = key.is_some_and(|key| !key.is_empty());
        let repeat = repeat_if(is_keyed || !request.producer_id.is_empty());
        self.call(request, repeat, |gateway, request| async move {
            gateway.messaging().publish(request).await
        })
        .await
    }

    /// Publishes up to 1,000 messages; each has an outcome of its own. Repeated as
    /// [`Client::publish`] when all of them are safe to repeat.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_batch(
        &self,
        request: PublishBatchRequest,
    ) -> Result<PublishBatchResponse, CallError> {
        let messages = &request.messages;
        let are_keyed = messages.iter().all(|it| !it.idempotency_key.is_empty());
        let repeat = repeat_if(are_keyed || !request.producer_id.is_empty());
        self.call(request, repeat, |gateway, request| async move {
            gateway.messaging().publish_batch(request).await
        })
        .await
    }

    /// Leases messages for a client without streams. Without a request id one is minted, so that a
    /// repetition after a lost answer gets the same messages.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn fetch(&self, mut request: FetchRequest) -> Result<FetchResponse, CallError> {
        if request.request_id.is_empty() {
            request.request_id = Uuid::now_v7().to_string();
        }
        let wait = waited(request.wait.as_ref());
        self.call_waiting(request, Repeat::Safe, wait, |gateway, request| async move {
            gateway.messaging().fetch(request).await
        })
        .await
    }

    /// Shows where a tracked message stands, and waits for its end if asked to.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn get_message(
        &self,
        request: GetMessageRequest,
    ) -> Result<GetMessageResponse, CallError> {
        let wait = waited(request.wait.as_ref());
        self.call_waiting(request, Repeat::Safe, wait, |gateway, request| async move {
            gateway.messaging().get_message(request).await
        })
        .await
    }

    /// Publishes a stream's history once more, to one group. Without an id one is minted, so that a
    /// repetition after a lost answer begins no second replay.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn replay_stream(
        &self,
        mut request: ReplayStreamRequest,
    ) -> Result<ReplayStreamResponse, CallError> {
        if request.replay_id.is_empty() {
            request.replay_id = Uuid::now_v7().to_string();
        }
        self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.messaging().replay_stream(request).await
        })
        .await
    }

    /// Shows one group with its figures.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn get_group(&self, name: impl Into<String>) -> Result<Group, CallError> {
        let request = GetGroupRequest { name: name.into() };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.groups().get_group(request).await
        });
        Ok(call.await?.group.unwrap_or_default())
    }

    /// Changes settings of a group.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn update_group(&self, request: UpdateGroupRequest) -> Result<Group, CallError> {
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.groups().update_group(request).await
        });
        Ok(call.await?.group.unwrap_or_default())
    }

    /// Stops deliveries of a group; publishes and settles go on.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn pause_group(&self, name: impl Into<String>) -> Result<Group, CallError> {
        let request = PauseGroupRequest { name: name.into() };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.groups().pause_group(request).await
        });
        Ok(call.await?.group.unwrap_or_default())
    }

    /// Starts deliveries of a group again.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn resume_group(&self, name: impl Into<String>) -> Result<Group, CallError> {
        let request = ResumeGroupRequest { name: name.into() };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.groups().resume_group(request).await
        });
        Ok(call.await?.group.unwrap_or_default())
    }

    /// Shows one stream.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn get_stream(&self, name: impl Into<String>) -> Result<Stream, CallError> {
        let request = GetStreamRequest { name: name.into() };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.streams().get_stream(request).await
        });
        Ok(call.await?.stream.unwrap_or_default())
    }

    /// Changes limits of a stream.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn update_stream(&self, request: UpdateStreamRequest) -> Result<Stream, CallError> {
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.streams().update_stream(request).await
        });
        Ok(call.await?.stream.unwrap_or_default())
    }
}

const fn repeat_if(is_safe: bool) -> Repeat {
    if is_safe { Repeat::Safe } else { Repeat::Never }
}

/// The wait that a request asks for; one that is none is the server's to refuse.
fn waited(wait: Option<&prost_types::Duration>) -> Duration {
    wait.and_then(|wait| Duration::try_from(*wait).ok())
        .unwrap_or_default()
}
