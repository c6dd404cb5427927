"""What each room of a process is told."""

from typing import Annotated, Literal

from pydantic import Field

from openanomaly.core.pipelines.options import LabelName, Options
from openanomaly.core.ports.model_engine import Precision


class ReceiverSettings(Options):
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Largest compressed request body."""
    unpacked_limit_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Largest declared size of an unpacked request body."""
    in_flight_limit_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Unpacked bytes of all requests in work; beyond it 503 with Retry-After."""
    publish_timeout_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    """Longest wait for the broker; below Prometheus' own 30 s."""
    retry_after_s: Annotated[int, Field(ge=1, le=3600)] = 5
    """After how long a sender that got 503 should try again."""
    coalesce_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long requests are gathered into a frame."""
    frame_limit_bytes: Annotated[int, Field(ge=4096, le=900_000)] = 512 << 10
    """Largest frame; below the broker's message limit."""
    label_names_limit: Annotated[int, Field(ge=1)] = 64
    """Most labels of a series."""
    label_name_limit_bytes: Annotated[int, Field(ge=1)] = 1024
    """Longest name of a label."""
    label_value_limit_bytes: Annotated[int, Field(ge=1)] = 4096
    """Longest value of a label."""
    known_series: Annotated[int, Field(ge=1024)] = 2_000_000
    """Raw label blocks whose identity is remembered."""
    labels_every_s: Annotated[float, Field(ge=1, le=3600)] = 600.0
    """How often a series' labels go along with its samples; window workers keep them meanwhile."""
    max_future_s: Annotated[float, Field(ge=0)] = 600.0
    """Samples further ahead of the wall clock are refused and counted."""
    replica_labels: tuple[LabelName, ...] = ()
    """Labels that tell the replicas of a high-availability pair apart, e.g. `__replica__`."""
    cluster_label: LabelName = "cluster"
    """Label that names the pair a replica belongs to."""
    failover_s: Annotated[float, Field(gt=0)] = 30.0
    """Silence of the accepted replica after which another one is."""


class WindowSettings(Options):
    max_series: Annotated[int, Field(ge=1)] = 1_000_000
    """Series held by one process; beyond it new ones are refused and counted."""
    checkpoint_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """Longest time between two checkpoints of a partition."""
    idle_ttl_s: Annotated[float, Field(ge=60)] = 6 * 3600
    """A series without a sample for so long is evicted; at least twice receiver.labels_every_s."""
    tick_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How often steps are closed that no sample closes."""


class InferenceSettings(Options):
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Most contexts of a batch."""
    max_wait_s: Annotated[float, Field(ge=0, le=60)] = 0.25
    """Longest wait of a context for others to share its batch."""
    queue_limit: Annotated[int, Field(ge=1)] = 65536
    """Contexts held in memory; beyond it the due topic waits."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the engine; 0 lets it choose."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")] = "auto"
    """Where torch runs a checkpoint: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a GPU if there is one."""
    precision: Precision = "tf32"
    """How finely a CUDA device multiplies: TF32 has eleven bits and is up to three times as fast."""


class BackfillSettings(Options):
    history_s: Annotated[float, Field(ge=0)] = 7 * 86400
    """Most history that a new series gets from the database at pull.url; 0 leaves it out."""
    series_per_query: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Series that are asked for together."""
    queries_per_s: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """Most such requests a second."""
    absent_labels: tuple[LabelName, ...] = ()
    """Labels that the database does not have, as external labels that a Prometheus adds when it sends."""


class StatusSettings(Options):
    series_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Series of which the newest steps are kept, for charts and shares of groups: 1.3 KB each."""
    lead_steps: Annotated[int, Field(ge=1, le=1000)] = 24
    """Steps kept of each: what a chart shows before its anomaly; 48 bytes each."""
    anomalies_limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Anomalous series that are shown, recent ones included: 12 KB each. Beyond it they are counted."""
    steps: Annotated[int, Field(ge=2, le=10_000)] = 240
    """Steps kept of each anomalous series; 48 bytes each."""
    recent_s: Annotated[float, Field(ge=1)] = 3600.0
    """How long an anomaly is shown after its end."""
    lead_s: Annotated[float, Field(ge=0)] = 1800.0
    """How far back scores are read at the start, so that the page is not empty after a restart."""


class LogSettings(Options):
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""
