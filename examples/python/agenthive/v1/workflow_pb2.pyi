from agenthive.v1 import messaging_pb2 as _messaging_pb2
from agenthive.v1 import task_pb2 as _task_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DependencyMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPENDENCY_MODE_UNSPECIFIED: _ClassVar[DependencyMode]
    DEPENDENCY_MODE_STRICT: _ClassVar[DependencyMode]
    DEPENDENCY_MODE_BEST_EFFORT: _ClassVar[DependencyMode]
    DEPENDENCY_MODE_OPTIMISTIC: _ClassVar[DependencyMode]

class WorkflowStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKFLOW_STRATEGY_UNSPECIFIED: _ClassVar[WorkflowStrategy]
    WORKFLOW_STRATEGY_SEQUENTIAL: _ClassVar[WorkflowStrategy]
    WORKFLOW_STRATEGY_PARALLEL: _ClassVar[WorkflowStrategy]
    WORKFLOW_STRATEGY_ADAPTIVE: _ClassVar[WorkflowStrategy]
    WORKFLOW_STRATEGY_PRIORITY_BASED: _ClassVar[WorkflowStrategy]
    WORKFLOW_STRATEGY_CAPABILITY_MATCHED: _ClassVar[WorkflowStrategy]
    WORKFLOW_STRATEGY_HYBRID: _ClassVar[WorkflowStrategy]

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    TASK_STATE_PENDING: _ClassVar[TaskState]
    TASK_STATE_AWAITED: _ClassVar[TaskState]
    TASK_STATE_QUEUED: _ClassVar[TaskState]
    TASK_STATE_RUNNING: _ClassVar[TaskState]
    TASK_STATE_WAITING_INPUT: _ClassVar[TaskState]
    TASK_STATE_SUCCEEDED: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_TIMED_OUT: _ClassVar[TaskState]
    TASK_STATE_DEAD_LETTERED: _ClassVar[TaskState]
    TASK_STATE_SKIPPED: _ClassVar[TaskState]
    TASK_STATE_CANCELLED: _ClassVar[TaskState]

class WorkflowState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKFLOW_STATE_UNSPECIFIED: _ClassVar[WorkflowState]
    WORKFLOW_STATE_RUNNING: _ClassVar[WorkflowState]
    WORKFLOW_STATE_PAUSED: _ClassVar[WorkflowState]
    WORKFLOW_STATE_SUCCEEDED: _ClassVar[WorkflowState]
    WORKFLOW_STATE_FAILED: _ClassVar[WorkflowState]
    WORKFLOW_STATE_CANCELLED: _ClassVar[WorkflowState]
DEPENDENCY_MODE_UNSPECIFIED: DependencyMode
DEPENDENCY_MODE_STRICT: DependencyMode
DEPENDENCY_MODE_BEST_EFFORT: DependencyMode
DEPENDENCY_MODE_OPTIMISTIC: DependencyMode
WORKFLOW_STRATEGY_UNSPECIFIED: WorkflowStrategy
WORKFLOW_STRATEGY_SEQUENTIAL: WorkflowStrategy
WORKFLOW_STRATEGY_PARALLEL: WorkflowStrategy
WORKFLOW_STRATEGY_ADAPTIVE: WorkflowStrategy
WORKFLOW_STRATEGY_PRIORITY_BASED: WorkflowStrategy
WORKFLOW_STRATEGY_CAPABILITY_MATCHED: WorkflowStrategy
WORKFLOW_STRATEGY_HYBRID: WorkflowStrategy
TASK_STATE_UNSPECIFIED: TaskState
TASK_STATE_PENDING: TaskState
TASK_STATE_AWAITED: TaskState
TASK_STATE_QUEUED: TaskState
TASK_STATE_RUNNING: TaskState
TASK_STATE_WAITING_INPUT: TaskState
TASK_STATE_SUCCEEDED: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_TIMED_OUT: TaskState
TASK_STATE_DEAD_LETTERED: TaskState
TASK_STATE_SKIPPED: TaskState
TASK_STATE_CANCELLED: TaskState
WORKFLOW_STATE_UNSPECIFIED: WorkflowState
WORKFLOW_STATE_RUNNING: WorkflowState
WORKFLOW_STATE_PAUSED: WorkflowState
WORKFLOW_STATE_SUCCEEDED: WorkflowState
WORKFLOW_STATE_FAILED: WorkflowState
WORKFLOW_STATE_CANCELLED: WorkflowState

class WorkflowSpec(_message.Message):
    __slots__ = ("workflow_id", "tasks", "dependency_mode", "strategy", "max_parallel_tasks", "deadline", "labels", "on_failure", "open")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCY_MODE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_TASKS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    tasks: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskSpec]
    dependency_mode: DependencyMode
    strategy: WorkflowStrategy
    max_parallel_tasks: int
    deadline: _duration_pb2.Duration
    labels: _containers.ScalarMap[str, str]
    on_failure: _task_pb2.FailurePolicy
    open: bool
    def __init__(self, workflow_id: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[_task_pb2.TaskSpec, _Mapping]]] = ..., dependency_mode: _Optional[_Union[DependencyMode, str]] = ..., strategy: _Optional[_Union[WorkflowStrategy, str]] = ..., max_parallel_tasks: _Optional[int] = ..., deadline: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., on_failure: _Optional[_Union[_task_pb2.FailurePolicy, str]] = ..., open: bool = ...) -> None: ...

class SubmitWorkflowRequest(_message.Message):
    __slots__ = ("workflow",)
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    workflow: WorkflowSpec
    def __init__(self, workflow: _Optional[_Union[WorkflowSpec, _Mapping]] = ...) -> None: ...

class SubmitWorkflowResponse(_message.Message):
    __slots__ = ("workflow_id", "run_id", "already", "routed_tasks", "waiting_tasks")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    ROUTED_TASKS_FIELD_NUMBER: _ClassVar[int]
    WAITING_TASKS_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    already: bool
    routed_tasks: _containers.RepeatedScalarFieldContainer[str]
    waiting_tasks: int
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., already: bool = ..., routed_tasks: _Optional[_Iterable[str]] = ..., waiting_tasks: _Optional[int] = ...) -> None: ...

class ValidateWorkflowRequest(_message.Message):
    __slots__ = ("workflow",)
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    workflow: WorkflowSpec
    def __init__(self, workflow: _Optional[_Union[WorkflowSpec, _Mapping]] = ...) -> None: ...

class ValidateWorkflowResponse(_message.Message):
    __slots__ = ("field_violations", "placements")
    FIELD_VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    field_violations: _containers.RepeatedCompositeFieldContainer[_messaging_pb2.FieldViolation]
    placements: _containers.RepeatedCompositeFieldContainer[TaskPlacement]
    def __init__(self, field_violations: _Optional[_Iterable[_Union[_messaging_pb2.FieldViolation, _Mapping]]] = ..., placements: _Optional[_Iterable[_Union[TaskPlacement, _Mapping]]] = ...) -> None: ...

class TaskPlacement(_message.Message):
    __slots__ = ("task_id", "group", "reason")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    group: str
    reason: str
    def __init__(self, task_id: _Optional[str] = ..., group: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RouteTaskRequest(_message.Message):
    __slots__ = ("workflow_id", "task")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    task: _task_pb2.TaskSpec
    def __init__(self, workflow_id: _Optional[str] = ..., task: _Optional[_Union[_task_pb2.TaskSpec, _Mapping]] = ...) -> None: ...

class RouteTaskResponse(_message.Message):
    __slots__ = ("run_id", "group", "reason", "waits_for", "already")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    group: str
    reason: str
    waits_for: _containers.RepeatedScalarFieldContainer[str]
    already: bool
    def __init__(self, run_id: _Optional[str] = ..., group: _Optional[str] = ..., reason: _Optional[str] = ..., waits_for: _Optional[_Iterable[str]] = ..., already: bool = ...) -> None: ...

class Workflow(_message.Message):
    __slots__ = ("workflow_id", "run_id", "state", "reason", "created_at", "finished_at", "deadline_at", "labels", "dependency_mode", "strategy", "max_parallel_tasks", "parallel_limit", "open", "task_counts", "tasks", "event_id", "ending")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TaskCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_AT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCY_MODE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_TASKS_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_LIMIT_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    TASK_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    state: WorkflowState
    reason: str
    created_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    deadline_at: _timestamp_pb2.Timestamp
    labels: _containers.ScalarMap[str, str]
    dependency_mode: DependencyMode
    strategy: WorkflowStrategy
    max_parallel_tasks: int
    parallel_limit: int
    open: bool
    task_counts: _containers.ScalarMap[str, int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    event_id: str
    ending: bool
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., state: _Optional[_Union[WorkflowState, str]] = ..., reason: _Optional[str] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., dependency_mode: _Optional[_Union[DependencyMode, str]] = ..., strategy: _Optional[_Union[WorkflowStrategy, str]] = ..., max_parallel_tasks: _Optional[int] = ..., parallel_limit: _Optional[int] = ..., open: bool = ..., task_counts: _Optional[_Mapping[str, int]] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., event_id: _Optional[str] = ..., ending: bool = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "type", "group", "dependencies", "priority", "state", "attempt", "deliveries", "consumer", "started_at", "finished_at", "reason", "has_result", "result", "provisional")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HAS_RESULT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROVISIONAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    group: str
    dependencies: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    state: TaskState
    attempt: int
    deliveries: int
    consumer: str
    started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    reason: str
    has_result: bool
    result: bytes
    provisional: bool
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., group: _Optional[str] = ..., dependencies: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., state: _Optional[_Union[TaskState, str]] = ..., attempt: _Optional[int] = ..., deliveries: _Optional[int] = ..., consumer: _Optional[str] = ..., started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., has_result: bool = ..., result: _Optional[bytes] = ..., provisional: bool = ...) -> None: ...

class GetWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "include_results")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_RESULTS_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    include_results: bool
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., include_results: bool = ...) -> None: ...

class GetWorkflowResponse(_message.Message):
    __slots__ = ("workflow",)
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    workflow: Workflow
    def __init__(self, workflow: _Optional[_Union[Workflow, _Mapping]] = ...) -> None: ...

class GetTaskResultRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "task_id")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    task_id: str
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class GetTaskResultResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    def __init__(self, result: _Optional[bytes] = ...) -> None: ...

class ListWorkflowsRequest(_message.Message):
    __slots__ = ("state", "labels", "created_since", "created_before", "limit", "cursor")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATED_SINCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    state: WorkflowState
    labels: _containers.ScalarMap[str, str]
    created_since: _timestamp_pb2.Timestamp
    created_before: _timestamp_pb2.Timestamp
    limit: int
    cursor: str
    def __init__(self, state: _Optional[_Union[WorkflowState, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., created_since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., created_before: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListWorkflowsResponse(_message.Message):
    __slots__ = ("workflows", "next_cursor")
    WORKFLOWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    workflows: _containers.RepeatedCompositeFieldContainer[Workflow]
    next_cursor: str
    def __init__(self, workflows: _Optional[_Iterable[_Union[Workflow, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class WatchWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "after_event_id")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    after_event_id: str
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., after_event_id: _Optional[str] = ...) -> None: ...

class WatchWorkflowResponse(_message.Message):
    __slots__ = ("snapshot", "event")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Workflow
    event: WorkflowEvent
    def __init__(self, snapshot: _Optional[_Union[Workflow, _Mapping]] = ..., event: _Optional[_Union[WorkflowEvent, _Mapping]] = ...) -> None: ...

class WorkflowEvent(_message.Message):
    __slots__ = ("event_id", "time", "task_id", "what", "attempt", "reason", "consumer")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    time: _timestamp_pb2.Timestamp
    task_id: str
    what: str
    attempt: int
    reason: str
    consumer: str
    def __init__(self, event_id: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., task_id: _Optional[str] = ..., what: _Optional[str] = ..., attempt: _Optional[int] = ..., reason: _Optional[str] = ..., consumer: _Optional[str] = ...) -> None: ...

class SignalTaskCompletionRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "task_id", "result")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    task_id: str
    result: bytes
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., task_id: _Optional[str] = ..., result: _Optional[bytes] = ...) -> None: ...

class SignalTaskCompletionResponse(_message.Message):
    __slots__ = ("triggered_tasks", "already")
    TRIGGERED_TASKS_FIELD_NUMBER: _ClassVar[int]
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    triggered_tasks: _containers.RepeatedScalarFieldContainer[str]
    already: bool
    def __init__(self, triggered_tasks: _Optional[_Iterable[str]] = ..., already: bool = ...) -> None: ...

class SignalTaskFailureRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "task_id", "reason")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    task_id: str
    reason: str
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., task_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SignalTaskFailureResponse(_message.Message):
    __slots__ = ("already",)
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    already: bool
    def __init__(self, already: bool = ...) -> None: ...

class ProvideInputRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "task_id", "input")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    task_id: str
    input: bytes
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., task_id: _Optional[str] = ..., input: _Optional[bytes] = ...) -> None: ...

class ProvideInputResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CloseWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id",)
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    def __init__(self, workflow_id: _Optional[str] = ...) -> None: ...

class CloseWorkflowResponse(_message.Message):
    __slots__ = ("already",)
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    already: bool
    def __init__(self, already: bool = ...) -> None: ...

class AddTasksRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "tasks")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    tasks: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskSpec]
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[_task_pb2.TaskSpec, _Mapping]]] = ...) -> None: ...

class AddTasksResponse(_message.Message):
    __slots__ = ("already",)
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    already: bool
    def __init__(self, already: bool = ...) -> None: ...

class PauseWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id", "reason")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    reason: str
    def __init__(self, workflow_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseWorkflowResponse(_message.Message):
    __slots__ = ("already",)
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    already: bool
    def __init__(self, already: bool = ...) -> None: ...

class ResumeWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id",)
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    def __init__(self, workflow_id: _Optional[str] = ...) -> None: ...

class ResumeWorkflowResponse(_message.Message):
    __slots__ = ("already",)
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    already: bool
    def __init__(self, already: bool = ...) -> None: ...

class CancelWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id", "reason")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    reason: str
    def __init__(self, workflow_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelWorkflowResponse(_message.Message):
    __slots__ = ("already",)
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    already: bool
    def __init__(self, already: bool = ...) -> None: ...

class RetryTaskRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "task_id")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    task_id: str
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class RetryTaskResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RerunWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id", "from_task")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_TASK_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    from_task: str
    def __init__(self, workflow_id: _Optional[str] = ..., from_task: _Optional[str] = ...) -> None: ...

class RerunWorkflowResponse(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class DeleteWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id",)
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    def __init__(self, workflow_id: _Optional[str] = ...) -> None: ...

class DeleteWorkflowResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHistoryRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "after_event_id", "limit")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    after_event_id: str
    limit: int
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., after_event_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GetHistoryResponse(_message.Message):
    __slots__ = ("events", "more")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[WorkflowEvent]
    more: bool
    def __init__(self, events: _Optional[_Iterable[_Union[WorkflowEvent, _Mapping]]] = ..., more: bool = ...) -> None: ...

class ExplainTaskRequest(_message.Message):
    __slots__ = ("workflow_id", "run_id", "task_id")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    run_id: str
    task_id: str
    def __init__(self, workflow_id: _Optional[str] = ..., run_id: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class ExplainTaskResponse(_message.Message):
    __slots__ = ("state", "waits_for", "lines")
    STATE_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    state: TaskState
    waits_for: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[_Union[TaskState, str]] = ..., waits_for: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...
