from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoutingMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTING_MODE_UNSPECIFIED: _ClassVar[RoutingMode]
    ROUTING_MODE_LOAD_BALANCED: _ClassVar[RoutingMode]
    ROUTING_MODE_ROUND_ROBIN: _ClassVar[RoutingMode]
    ROUTING_MODE_PRIORITY_BASED: _ClassVar[RoutingMode]
    ROUTING_MODE_CAPABILITY_MATCHED: _ClassVar[RoutingMode]
    ROUTING_MODE_WORKFLOW_AWARE: _ClassVar[RoutingMode]

class StartPosition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_POSITION_UNSPECIFIED: _ClassVar[StartPosition]
    START_POSITION_EARLIEST: _ClassVar[StartPosition]
    START_POSITION_LATEST: _ClassVar[StartPosition]

class OrderingOnDead(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDERING_ON_DEAD_UNSPECIFIED: _ClassVar[OrderingOnDead]
    ORDERING_ON_DEAD_CONTINUE: _ClassVar[OrderingOnDead]
    ORDERING_ON_DEAD_BLOCK: _ClassVar[OrderingOnDead]

class ConsumerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSUMER_KIND_UNSPECIFIED: _ClassVar[ConsumerKind]
    CONSUMER_KIND_STREAM: _ClassVar[ConsumerKind]
    CONSUMER_KIND_PULL: _ClassVar[ConsumerKind]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_MEMORY: _ClassVar[Durability]
    DURABILITY_LOCAL: _ClassVar[Durability]
ROUTING_MODE_UNSPECIFIED: RoutingMode
ROUTING_MODE_LOAD_BALANCED: RoutingMode
ROUTING_MODE_ROUND_ROBIN: RoutingMode
ROUTING_MODE_PRIORITY_BASED: RoutingMode
ROUTING_MODE_CAPABILITY_MATCHED: RoutingMode
ROUTING_MODE_WORKFLOW_AWARE: RoutingMode
START_POSITION_UNSPECIFIED: StartPosition
START_POSITION_EARLIEST: StartPosition
START_POSITION_LATEST: StartPosition
ORDERING_ON_DEAD_UNSPECIFIED: OrderingOnDead
ORDERING_ON_DEAD_CONTINUE: OrderingOnDead
ORDERING_ON_DEAD_BLOCK: OrderingOnDead
CONSUMER_KIND_UNSPECIFIED: ConsumerKind
CONSUMER_KIND_STREAM: ConsumerKind
CONSUMER_KIND_PULL: ConsumerKind
DURABILITY_UNSPECIFIED: Durability
DURABILITY_MEMORY: Durability
DURABILITY_LOCAL: Durability

class GroupSettings(_message.Message):
    __slots__ = ("max_consumers", "min_consumers", "auto_scale_enabled", "lag_threshold", "routing_mode", "lease", "max_attempts", "initial_backoff", "max_backoff", "priority_ageing", "reconnect_grace", "max_in_flight_per_consumer", "max_in_flight", "ordering_on_dead")
    MAX_CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    MIN_CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    AUTO_SCALE_ENABLED_FIELD_NUMBER: _ClassVar[int]
    LAG_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ROUTING_MODE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_AGEING_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_GRACE_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_PER_CONSUMER_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ORDERING_ON_DEAD_FIELD_NUMBER: _ClassVar[int]
    max_consumers: int
    min_consumers: int
    auto_scale_enabled: bool
    lag_threshold: int
    routing_mode: RoutingMode
    lease: _duration_pb2.Duration
    max_attempts: int
    initial_backoff: _duration_pb2.Duration
    max_backoff: _duration_pb2.Duration
    priority_ageing: _duration_pb2.Duration
    reconnect_grace: _duration_pb2.Duration
    max_in_flight_per_consumer: int
    max_in_flight: int
    ordering_on_dead: OrderingOnDead
    def __init__(self, max_consumers: _Optional[int] = ..., min_consumers: _Optional[int] = ..., auto_scale_enabled: bool = ..., lag_threshold: _Optional[int] = ..., routing_mode: _Optional[_Union[RoutingMode, str]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_attempts: _Optional[int] = ..., initial_backoff: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_backoff: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., priority_ageing: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., reconnect_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_in_flight_per_consumer: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., ordering_on_dead: _Optional[_Union[OrderingOnDead, str]] = ...) -> None: ...

class CreateGroupRequest(_message.Message):
    __slots__ = ("name", "stream_name", "agent_type", "settings", "start", "shards", "stream_settings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STREAM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    STREAM_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    stream_name: str
    agent_type: str
    settings: GroupSettings
    start: StartPosition
    shards: int
    stream_settings: StreamSettings
    def __init__(self, name: _Optional[str] = ..., stream_name: _Optional[str] = ..., agent_type: _Optional[str] = ..., settings: _Optional[_Union[GroupSettings, _Mapping]] = ..., start: _Optional[_Union[StartPosition, str]] = ..., shards: _Optional[int] = ..., stream_settings: _Optional[_Union[StreamSettings, _Mapping]] = ...) -> None: ...

class CreateGroupResponse(_message.Message):
    __slots__ = ("group", "created")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    group: Group
    created: bool
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ..., created: bool = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "stream_name", "agent_type", "settings", "start", "shards", "paused", "created_at", "figures")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STREAM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    name: str
    stream_name: str
    agent_type: str
    settings: GroupSettings
    start: StartPosition
    shards: int
    paused: bool
    created_at: _timestamp_pb2.Timestamp
    figures: GroupFigures
    def __init__(self, name: _Optional[str] = ..., stream_name: _Optional[str] = ..., agent_type: _Optional[str] = ..., settings: _Optional[_Union[GroupSettings, _Mapping]] = ..., start: _Optional[_Union[StartPosition, str]] = ..., shards: _Optional[int] = ..., paused: bool = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., figures: _Optional[_Union[GroupFigures, _Mapping]] = ...) -> None: ...

class GroupFigures(_message.Message):
    __slots__ = ("current_consumers", "lag", "pending_count", "scheduled_count", "throughput_msg_per_sec", "success_rate", "avg_processing_time_ms", "oldest_waiting_seconds", "health", "published_total", "acked_total", "failed_total", "dead_total", "redelivered_total", "released_total", "expired_total", "blocked_keys", "unsettled_bytes")
    CURRENT_CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    PENDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_COUNT_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_MSG_PER_SEC_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    AVG_PROCESSING_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAITING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ACKED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DEAD_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RELEASED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_KEYS_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    current_consumers: int
    lag: int
    pending_count: int
    scheduled_count: int
    throughput_msg_per_sec: float
    success_rate: float
    avg_processing_time_ms: float
    oldest_waiting_seconds: float
    health: str
    published_total: int
    acked_total: int
    failed_total: int
    dead_total: int
    redelivered_total: int
    released_total: int
    expired_total: int
    blocked_keys: int
    unsettled_bytes: int
    def __init__(self, current_consumers: _Optional[int] = ..., lag: _Optional[int] = ..., pending_count: _Optional[int] = ..., scheduled_count: _Optional[int] = ..., throughput_msg_per_sec: _Optional[float] = ..., success_rate: _Optional[float] = ..., avg_processing_time_ms: _Optional[float] = ..., oldest_waiting_seconds: _Optional[float] = ..., health: _Optional[str] = ..., published_total: _Optional[int] = ..., acked_total: _Optional[int] = ..., failed_total: _Optional[int] = ..., dead_total: _Optional[int] = ..., redelivered_total: _Optional[int] = ..., released_total: _Optional[int] = ..., expired_total: _Optional[int] = ..., blocked_keys: _Optional[int] = ..., unsettled_bytes: _Optional[int] = ...) -> None: ...

class GetGroupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: Group
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class UpdateGroupRequest(_message.Message):
    __slots__ = ("name", "settings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    settings: GroupSettings
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[GroupSettings, _Mapping]] = ...) -> None: ...

class UpdateGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: Group
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("name", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., force: bool = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ("cancelled",)
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    cancelled: int
    def __init__(self, cancelled: _Optional[int] = ...) -> None: ...

class PauseGroupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PauseGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: Group
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ...) -> None: ...

class ResumeGroupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResumeGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: Group
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ...) -> None: ...

class ListBlockedKeysRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListBlockedKeysResponse(_message.Message):
    __slots__ = ("ordering_keys",)
    ORDERING_KEYS_FIELD_NUMBER: _ClassVar[int]
    ordering_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ordering_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class UnblockKeyRequest(_message.Message):
    __slots__ = ("name", "ordering_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ORDERING_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    ordering_key: str
    def __init__(self, name: _Optional[str] = ..., ordering_key: _Optional[str] = ...) -> None: ...

class UnblockKeyResponse(_message.Message):
    __slots__ = ("unblocked",)
    UNBLOCKED_FIELD_NUMBER: _ClassVar[int]
    unblocked: bool
    def __init__(self, unblocked: bool = ...) -> None: ...

class ListConsumersRequest(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class ListConsumersResponse(_message.Message):
    __slots__ = ("consumers",)
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    consumers: _containers.RepeatedCompositeFieldContainer[Consumer]
    def __init__(self, consumers: _Optional[_Iterable[_Union[Consumer, _Mapping]]] = ...) -> None: ...

class Consumer(_message.Message):
    __slots__ = ("consumer_id", "kind", "capabilities", "concurrency", "in_flight", "gateway", "last_seen")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    kind: ConsumerKind
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    concurrency: int
    in_flight: int
    gateway: str
    last_seen: _timestamp_pb2.Timestamp
    def __init__(self, consumer_id: _Optional[str] = ..., kind: _Optional[_Union[ConsumerKind, str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., concurrency: _Optional[int] = ..., in_flight: _Optional[int] = ..., gateway: _Optional[str] = ..., last_seen: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AddConsumerRequest(_message.Message):
    __slots__ = ("group", "consumer_id", "capabilities")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    group: str
    consumer_id: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group: _Optional[str] = ..., consumer_id: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class AddConsumerResponse(_message.Message):
    __slots__ = ("consumer",)
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    consumer: Consumer
    def __init__(self, consumer: _Optional[_Union[Consumer, _Mapping]] = ...) -> None: ...

class RemoveConsumerRequest(_message.Message):
    __slots__ = ("group", "consumer_id")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    group: str
    consumer_id: str
    def __init__(self, group: _Optional[str] = ..., consumer_id: _Optional[str] = ...) -> None: ...

class RemoveConsumerResponse(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: int
    def __init__(self, released: _Optional[int] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class MinuteFigures(_message.Message):
    __slots__ = ("started_at", "acked", "failed", "work")
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    started_at: _timestamp_pb2.Timestamp
    acked: int
    failed: int
    work: _duration_pb2.Duration
    def __init__(self, started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., acked: _Optional[int] = ..., failed: _Optional[int] = ..., work: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("figures", "minutes")
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    MINUTES_FIELD_NUMBER: _ClassVar[int]
    figures: GroupFigures
    minutes: _containers.RepeatedCompositeFieldContainer[MinuteFigures]
    def __init__(self, figures: _Optional[_Union[GroupFigures, _Mapping]] = ..., minutes: _Optional[_Iterable[_Union[MinuteFigures, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("figures",)
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    figures: GroupFigures
    def __init__(self, figures: _Optional[_Union[GroupFigures, _Mapping]] = ...) -> None: ...

class StreamSettings(_message.Message):
    __slots__ = ("max_backlog", "retention_max_age", "retention_max_len", "durability", "buffer_without_groups", "max_backlog_bytes", "retention_max_bytes")
    MAX_BACKLOG_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MAX_LEN_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    BUFFER_WITHOUT_GROUPS_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKLOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_backlog: int
    retention_max_age: _duration_pb2.Duration
    retention_max_len: int
    durability: Durability
    buffer_without_groups: bool
    max_backlog_bytes: int
    retention_max_bytes: int
    def __init__(self, max_backlog: _Optional[int] = ..., retention_max_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., retention_max_len: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ..., buffer_without_groups: bool = ..., max_backlog_bytes: _Optional[int] = ..., retention_max_bytes: _Optional[int] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("name", "shards", "settings", "groups", "entries", "dead_letters", "created_at", "held_for_consumers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_FOR_CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    shards: int
    settings: StreamSettings
    groups: _containers.RepeatedScalarFieldContainer[str]
    entries: int
    dead_letters: int
    created_at: _timestamp_pb2.Timestamp
    held_for_consumers: int
    def __init__(self, name: _Optional[str] = ..., shards: _Optional[int] = ..., settings: _Optional[_Union[StreamSettings, _Mapping]] = ..., groups: _Optional[_Iterable[str]] = ..., entries: _Optional[int] = ..., dead_letters: _Optional[int] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., held_for_consumers: _Optional[int] = ...) -> None: ...

class CreateStreamRequest(_message.Message):
    __slots__ = ("name", "shards", "settings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    shards: int
    settings: StreamSettings
    def __init__(self, name: _Optional[str] = ..., shards: _Optional[int] = ..., settings: _Optional[_Union[StreamSettings, _Mapping]] = ...) -> None: ...

class CreateStreamResponse(_message.Message):
    __slots__ = ("stream", "created")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    created: bool
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ..., created: bool = ...) -> None: ...

class GetStreamRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class ListStreamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    def __init__(self, streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ...) -> None: ...

class UpdateStreamRequest(_message.Message):
    __slots__ = ("name", "settings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    settings: StreamSettings
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[StreamSettings, _Mapping]] = ...) -> None: ...

class UpdateStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class DeleteStreamRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteStreamResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcceptLossRequest(_message.Message):
    __slots__ = ("look_only",)
    LOOK_ONLY_FIELD_NUMBER: _ClassVar[int]
    look_only: bool
    def __init__(self, look_only: bool = ...) -> None: ...

class AcceptLossResponse(_message.Message):
    __slots__ = ("loss", "streams", "groups", "accepted")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    loss: str
    streams: _containers.RepeatedScalarFieldContainer[str]
    groups: _containers.RepeatedScalarFieldContainer[str]
    accepted: bool
    def __init__(self, loss: _Optional[str] = ..., streams: _Optional[_Iterable[str]] = ..., groups: _Optional[_Iterable[str]] = ..., accepted: bool = ...) -> None: ...
