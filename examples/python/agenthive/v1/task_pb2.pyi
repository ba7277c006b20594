from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FailurePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_POLICY_UNSPECIFIED: _ClassVar[FailurePolicy]
    FAILURE_POLICY_FAIL_WORKFLOW: _ClassVar[FailurePolicy]
    FAILURE_POLICY_SKIP_DEPENDENTS: _ClassVar[FailurePolicy]
    FAILURE_POLICY_CONTINUE: _ClassVar[FailurePolicy]
    FAILURE_POLICY_PAUSE: _ClassVar[FailurePolicy]

class TaskCompletion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_COMPLETION_UNSPECIFIED: _ClassVar[TaskCompletion]
    TASK_COMPLETION_ACK: _ClassVar[TaskCompletion]
    TASK_COMPLETION_SIGNAL: _ClassVar[TaskCompletion]
FAILURE_POLICY_UNSPECIFIED: FailurePolicy
FAILURE_POLICY_FAIL_WORKFLOW: FailurePolicy
FAILURE_POLICY_SKIP_DEPENDENTS: FailurePolicy
FAILURE_POLICY_CONTINUE: FailurePolicy
FAILURE_POLICY_PAUSE: FailurePolicy
TASK_COMPLETION_UNSPECIFIED: TaskCompletion
TASK_COMPLETION_ACK: TaskCompletion
TASK_COMPLETION_SIGNAL: TaskCompletion

class TaskSpec(_message.Message):
    __slots__ = ("id", "type", "group", "dependencies", "priority", "payload", "content_type", "required_capabilities", "timeout", "queue_timeout", "retry", "on_failure", "condition", "completion", "quorum", "message_type", "from_agent")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    FROM_AGENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    group: str
    dependencies: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    payload: bytes
    content_type: str
    required_capabilities: _containers.RepeatedScalarFieldContainer[str]
    timeout: _duration_pb2.Duration
    queue_timeout: _duration_pb2.Duration
    retry: RetryPolicy
    on_failure: FailurePolicy
    condition: str
    completion: TaskCompletion
    quorum: str
    message_type: str
    from_agent: str
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., group: _Optional[str] = ..., dependencies: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., payload: _Optional[bytes] = ..., content_type: _Optional[str] = ..., required_capabilities: _Optional[_Iterable[str]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., queue_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., on_failure: _Optional[_Union[FailurePolicy, str]] = ..., condition: _Optional[str] = ..., completion: _Optional[_Union[TaskCompletion, str]] = ..., quorum: _Optional[str] = ..., message_type: _Optional[str] = ..., from_agent: _Optional[str] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "initial_backoff", "max_backoff")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    initial_backoff: _duration_pb2.Duration
    max_backoff: _duration_pb2.Duration
    def __init__(self, max_attempts: _Optional[int] = ..., initial_backoff: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_backoff: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
