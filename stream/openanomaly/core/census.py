"""How many series a pipeline has in a partition, and how they stand: told in frames of scores without any."""

from dataclasses import asdict, dataclass

from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb


@dataclass(frozen=True, slots=True)
class Census:
    """How the series of a pipeline in one partition stand: those that had samples lately.

    Attributes:
        judged: of `series`, have had steps enough to be judged.
        unforecast: of the judged, without a forecast for their next step.
        steps_left: steps until the next of the others is judged; 0 if there are no others.
        closed: steps that closed since the census before.
        newest_ms: end of the newest step; 0 if there is none.
        emits_all: whether the scores of normal steps are sent too.
    """

    series: int
    judged: int
    unforecast: int
    steps_left: int
    closed: int
    newest_ms: int
    emits_all: bool

    def to_pb(self) -> pb.Census:
        return pb.Census(**asdict(self))

    @classmethod
    def from_pb(cls, m: pb.Census) -> "Census":
        return cls(m.series, m.judged, m.unforecast, m.steps_left, m.closed, m.newest_ms, m.emits_all)
