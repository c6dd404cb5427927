from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mark(_message.Message):
    __slots__ = ("samples", "forecasts", "tick_ms")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    FORECASTS_FIELD_NUMBER: _ClassVar[int]
    TICK_MS_FIELD_NUMBER: _ClassVar[int]
    samples: int
    forecasts: int
    tick_ms: int
    def __init__(self, samples: _Optional[int] = ..., forecasts: _Optional[int] = ..., tick_ms: _Optional[int] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("version", "mark", "block", "page", "bucket", "moved", "value", "score")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    version: int
    mark: Mark
    block: int
    page: int
    bucket: int
    moved: bytes
    value: bytes
    score: _containers.RepeatedCompositeFieldContainer[ScoreColumn]
    def __init__(self, version: _Optional[int] = ..., mark: _Optional[_Union[Mark, _Mapping]] = ..., block: _Optional[int] = ..., page: _Optional[int] = ..., bucket: _Optional[int] = ..., moved: _Optional[bytes] = ..., value: _Optional[bytes] = ..., score: _Optional[_Iterable[_Union[ScoreColumn, _Mapping]]] = ...) -> None: ...

class ScoreColumn(_message.Message):
    __slots__ = ("scorer", "score")
    SCORER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    scorer: int
    score: bytes
    def __init__(self, scorer: _Optional[int] = ..., score: _Optional[bytes] = ...) -> None: ...

class Patch(_message.Message):
    __slots__ = ("version", "mark", "block", "row", "bucket", "value", "score")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    version: int
    mark: Mark
    block: int
    row: bytes
    bucket: bytes
    value: bytes
    score: _containers.RepeatedCompositeFieldContainer[ScoreColumn]
    def __init__(self, version: _Optional[int] = ..., mark: _Optional[_Union[Mark, _Mapping]] = ..., block: _Optional[int] = ..., row: _Optional[bytes] = ..., bucket: _Optional[bytes] = ..., value: _Optional[bytes] = ..., score: _Optional[_Iterable[_Union[ScoreColumn, _Mapping]]] = ...) -> None: ...

class CataloguePage(_message.Message):
    __slots__ = ("version", "block", "page", "generation", "born", "base", "kind", "id", "label_offset", "labels_zstd", "specification", "first")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BORN_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LABELS_ZSTD_FIELD_NUMBER: _ClassVar[int]
    SPECIFICATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    version: int
    block: int
    page: int
    generation: bytes
    born: bytes
    base: bytes
    kind: bytes
    id: bytes
    label_offset: bytes
    labels_zstd: bytes
    specification: str
    first: int
    def __init__(self, version: _Optional[int] = ..., block: _Optional[int] = ..., page: _Optional[int] = ..., generation: _Optional[bytes] = ..., born: _Optional[bytes] = ..., base: _Optional[bytes] = ..., kind: _Optional[bytes] = ..., id: _Optional[bytes] = ..., label_offset: _Optional[bytes] = ..., labels_zstd: _Optional[bytes] = ..., specification: _Optional[str] = ..., first: _Optional[int] = ...) -> None: ...

class StatePage(_message.Message):
    __slots__ = ("version", "mark", "block", "page", "sequence", "generation", "hot", "cold", "first", "part_before", "part")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HOT_FIELD_NUMBER: _ClassVar[int]
    COLD_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    PART_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    version: int
    mark: Mark
    block: int
    page: int
    sequence: int
    generation: bytes
    hot: _containers.RepeatedCompositeFieldContainer[StateColumn]
    cold: _containers.RepeatedCompositeFieldContainer[StateColumn]
    first: int
    part_before: Mark
    part: Mark
    def __init__(self, version: _Optional[int] = ..., mark: _Optional[_Union[Mark, _Mapping]] = ..., block: _Optional[int] = ..., page: _Optional[int] = ..., sequence: _Optional[int] = ..., generation: _Optional[bytes] = ..., hot: _Optional[_Iterable[_Union[StateColumn, _Mapping]]] = ..., cold: _Optional[_Iterable[_Union[StateColumn, _Mapping]]] = ..., first: _Optional[int] = ..., part_before: _Optional[_Union[Mark, _Mapping]] = ..., part: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class StateColumn(_message.Message):
    __slots__ = ("owner", "name", "dtype", "values")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    owner: int
    name: str
    dtype: str
    values: bytes
    def __init__(self, owner: _Optional[int] = ..., name: _Optional[str] = ..., dtype: _Optional[str] = ..., values: _Optional[bytes] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("version", "source", "is_complete")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    IS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    version: int
    source: str
    is_complete: bool
    def __init__(self, version: _Optional[int] = ..., source: _Optional[str] = ..., is_complete: _Optional[bool] = ...) -> None: ...
