"""The path of test_scraped.py with a Prometheus 3 that speaks remote-write 2.0.

    uv run --all-extras tests/e2e/live.py

Builds Prometheus 3 on first use (Go, minutes). The last line is one JSON object; exit status 1 when a
scraped series has no score or Prometheus counted a failed sample.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.scraped import watch
from parts import prometheus


def main() -> None:
    prometheus.install_version_3()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seen = watch(root, f"embedded://{root / 'broker'}", {"partitions": 4}, version=3, message=2)
    missing = seen.expected - seen.scored
    result = {
        "sender": prometheus.MODULE.rsplit("@")[-1],
        "message": prometheus.MESSAGES[2],
        "series": len(seen.expected),
        "scored": len(seen.expected & seen.scored),
        "unexpected": len(seen.scored - seen.allowed),
        "failed_samples": seen.failed_samples,
    }
    print(json.dumps(result))
    sys.exit(1 if missing or seen.failed_samples else 0)


if __name__ == "__main__":
    main()
