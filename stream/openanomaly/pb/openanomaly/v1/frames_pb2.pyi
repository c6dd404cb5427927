from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Series(_message.Message):
    __slots__ = ("id", "label_offset", "labels", "kind", "labels_zstd")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_ZSTD_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    label_offset: bytes
    labels: bytes
    kind: bytes
    labels_zstd: bytes
    def __init__(self, id: _Optional[bytes] = ..., label_offset: _Optional[bytes] = ..., labels: _Optional[bytes] = ..., kind: _Optional[bytes] = ..., labels_zstd: _Optional[bytes] = ...) -> None: ...

class SampleFrame(_message.Message):
    __slots__ = ("version", "series", "row", "timestamp_ms", "value", "received_ms", "of_groups")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_MS_FIELD_NUMBER: _ClassVar[int]
    OF_GROUPS_FIELD_NUMBER: _ClassVar[int]
    version: int
    series: Series
    row: bytes
    timestamp_ms: bytes
    value: bytes
    received_ms: int
    of_groups: bool
    def __init__(self, version: _Optional[int] = ..., series: _Optional[_Union[Series, _Mapping]] = ..., row: _Optional[bytes] = ..., timestamp_ms: _Optional[bytes] = ..., value: _Optional[bytes] = ..., received_ms: _Optional[int] = ..., of_groups: _Optional[bool] = ...) -> None: ...

class DueFrame(_message.Message):
    __slots__ = ("version", "partition", "block", "forecaster", "model", "horizon", "step_ms", "length", "row", "generation", "origin", "context", "center", "scale", "closed_ms", "useful_until_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    FORECASTER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CENTER_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_MS_FIELD_NUMBER: _ClassVar[int]
    USEFUL_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    partition: int
    block: int
    forecaster: int
    model: str
    horizon: int
    step_ms: int
    length: int
    row: bytes
    generation: bytes
    origin: bytes
    context: bytes
    center: bytes
    scale: bytes
    closed_ms: int
    useful_until_ms: int
    def __init__(self, version: _Optional[int] = ..., partition: _Optional[int] = ..., block: _Optional[int] = ..., forecaster: _Optional[int] = ..., model: _Optional[str] = ..., horizon: _Optional[int] = ..., step_ms: _Optional[int] = ..., length: _Optional[int] = ..., row: _Optional[bytes] = ..., generation: _Optional[bytes] = ..., origin: _Optional[bytes] = ..., context: _Optional[bytes] = ..., center: _Optional[bytes] = ..., scale: _Optional[bytes] = ..., closed_ms: _Optional[int] = ..., useful_until_ms: _Optional[int] = ...) -> None: ...

class ForecastFrame(_message.Message):
    __slots__ = ("version", "partition", "block", "forecaster", "horizon", "level", "row", "generation", "origin", "center", "scale", "quantile")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    FORECASTER_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CENTER_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    QUANTILE_FIELD_NUMBER: _ClassVar[int]
    version: int
    partition: int
    block: int
    forecaster: int
    horizon: int
    level: bytes
    row: bytes
    generation: bytes
    origin: bytes
    center: bytes
    scale: bytes
    quantile: bytes
    def __init__(self, version: _Optional[int] = ..., partition: _Optional[int] = ..., block: _Optional[int] = ..., forecaster: _Optional[int] = ..., horizon: _Optional[int] = ..., level: _Optional[bytes] = ..., row: _Optional[bytes] = ..., generation: _Optional[bytes] = ..., origin: _Optional[bytes] = ..., center: _Optional[bytes] = ..., scale: _Optional[bytes] = ..., quantile: _Optional[bytes] = ...) -> None: ...

class ScoreFrame(_message.Message):
    __slots__ = ("version", "pipeline", "step_ms", "series", "row", "timestamp_ms", "score", "value", "expected", "reason", "flags", "closed_ms", "census", "of_groups")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_MS_FIELD_NUMBER: _ClassVar[int]
    CENSUS_FIELD_NUMBER: _ClassVar[int]
    OF_GROUPS_FIELD_NUMBER: _ClassVar[int]
    version: int
    pipeline: str
    step_ms: int
    series: Series
    row: bytes
    timestamp_ms: bytes
    score: bytes
    value: bytes
    expected: bytes
    reason: bytes
    flags: bytes
    closed_ms: int
    census: Census
    of_groups: bool
    def __init__(self, version: _Optional[int] = ..., pipeline: _Optional[str] = ..., step_ms: _Optional[int] = ..., series: _Optional[_Union[Series, _Mapping]] = ..., row: _Optional[bytes] = ..., timestamp_ms: _Optional[bytes] = ..., score: _Optional[bytes] = ..., value: _Optional[bytes] = ..., expected: _Optional[bytes] = ..., reason: _Optional[bytes] = ..., flags: _Optional[bytes] = ..., closed_ms: _Optional[int] = ..., census: _Optional[_Union[Census, _Mapping]] = ..., of_groups: _Optional[bool] = ...) -> None: ...

class Census(_message.Message):
    __slots__ = ("series", "judged", "unforecast", "steps_left", "closed", "newest_ms", "emits_all")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    UNFORECAST_FIELD_NUMBER: _ClassVar[int]
    STEPS_LEFT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_MS_FIELD_NUMBER: _ClassVar[int]
    EMITS_ALL_FIELD_NUMBER: _ClassVar[int]
    series: int
    judged: int
    unforecast: int
    steps_left: int
    closed: int
    newest_ms: int
    emits_all: bool
    def __init__(self, series: _Optional[int] = ..., judged: _Optional[int] = ..., unforecast: _Optional[int] = ..., steps_left: _Optional[int] = ..., closed: _Optional[int] = ..., newest_ms: _Optional[int] = ..., emits_all: _Optional[bool] = ...) -> None: ...

class GroupFrame(_message.Message):
    __slots__ = ("version", "partition", "counts", "through")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    version: int
    partition: int
    counts: _containers.RepeatedCompositeFieldContainer[GroupCounts]
    through: _containers.RepeatedCompositeFieldContainer[Through]
    def __init__(self, version: _Optional[int] = ..., partition: _Optional[int] = ..., counts: _Optional[_Iterable[_Union[GroupCounts, _Mapping]]] = ..., through: _Optional[_Iterable[_Union[Through, _Mapping]]] = ...) -> None: ...

class GroupCounts(_message.Message):
    __slots__ = ("pipeline", "step_ms", "bucket", "part", "due_in_ms", "is_late", "series", "scored", "anomalous")
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    DUE_IN_MS_FIELD_NUMBER: _ClassVar[int]
    IS_LATE_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    ANOMALOUS_FIELD_NUMBER: _ClassVar[int]
    pipeline: str
    step_ms: int
    bucket: int
    part: int
    due_in_ms: int
    is_late: bool
    series: Series
    scored: bytes
    anomalous: bytes
    def __init__(self, pipeline: _Optional[str] = ..., step_ms: _Optional[int] = ..., bucket: _Optional[int] = ..., part: _Optional[int] = ..., due_in_ms: _Optional[int] = ..., is_late: _Optional[bool] = ..., series: _Optional[_Union[Series, _Mapping]] = ..., scored: _Optional[bytes] = ..., anomalous: _Optional[bytes] = ...) -> None: ...

class Through(_message.Message):
    __slots__ = ("pipeline", "step_ms", "bucket")
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    pipeline: str
    step_ms: int
    bucket: int
    def __init__(self, pipeline: _Optional[str] = ..., step_ms: _Optional[int] = ..., bucket: _Optional[int] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("version", "reason", "topic", "partition", "offset", "detail", "key", "payload", "noted_ms", "set_aside", "letter")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    NOTED_MS_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    LETTER_FIELD_NUMBER: _ClassVar[int]
    version: int
    reason: str
    topic: str
    partition: int
    offset: int
    detail: str
    key: bytes
    payload: bytes
    noted_ms: int
    set_aside: bool
    letter: int
    def __init__(self, version: _Optional[int] = ..., reason: _Optional[str] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., detail: _Optional[str] = ..., key: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., noted_ms: _Optional[int] = ..., set_aside: _Optional[bool] = ..., letter: _Optional[int] = ...) -> None: ...
