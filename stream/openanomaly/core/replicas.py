"""One replica per cluster: of a high-availability pair of senders, who is listened to.

The first replica seen is accepted. Another one takes over after the accepted one was silent for
`failover_ms`, so a restart of a sender costs that long and a switch back never flaps.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _Cluster:
    accepted: str
    heard_ms: int


class Replicas:
    """Decides by cluster and replica name; time is passed in."""

    def __init__(self, failover_ms: int) -> None:
        self._failover_ms = failover_ms
        self._clusters: dict[str, _Cluster] = {}
        self.failovers = 0

    def accept(self, cluster: str, replica: str, now_ms: int) -> bool:
        """Whether samples of `replica` that arrive now are taken."""
        current = self._clusters.get(cluster)
        if current is None:
            self._clusters[cluster] = _Cluster(replica, now_ms)
            return True
        if current.accepted != replica:
            if now_ms - current.heard_ms <= self._failover_ms:
                return False
            current.accepted = replica
            self.failovers += 1
        current.heard_ms = now_ms
        return True

    def accepted(self, cluster: str) -> str | None:
        """The replica that is listened to."""
        current = self._clusters.get(cluster)
        return current.accepted if current else None
