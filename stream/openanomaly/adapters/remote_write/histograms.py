"""Whether a native histogram is consistent: the rules of Prometheus' model/histogram Validate.

Histograms are accepted and counted, not scored, so that a sender that has some keeps working. One
that contradicts itself is refused as every other receiver refuses it.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from openanomaly.pb.prometheus import remote_write_1_pb2 as pb1
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb2

Histogram = pb1.Histogram | pb2.Histogram
_CUSTOM = -53


def fault(h: Histogram) -> str | None:
    """What is wrong with `h`, or None."""
    if h.schema != _CUSTOM and not -9 <= h.schema <= 52:
        return f"schema {h.schema} is not known"
    found = _custom_fault(h) if h.schema == _CUSTOM else None
    found = found or _spans_fault("negative", h.negative_spans, _buckets(h, "negative"))
    found = found or _spans_fault("positive", h.positive_spans, _buckets(h, "positive"))
    if found:
        return found
    if h.WhichOneof("count") == "count_float":
        counts = [h.count_float, h.zero_count_float, *h.negative_counts, *h.positive_counts]
        return "a count is negative" if any(c < 0 for c in counts) else None
    return _count_fault(h)


def _buckets(h: Histogram, side: str) -> Sequence[float]:
    deltas, counts = getattr(h, f"{side}_deltas"), getattr(h, f"{side}_counts")
    return list(accumulate(deltas)) if deltas else list(counts)


def _spans_fault(
    side: str, spans: Sequence[pb1.BucketSpan] | Sequence[pb2.BucketSpan], buckets: Sequence[float]
) -> str | None:
    if any(s.offset < 0 for s in spans[1:]):
        return f"a {side} span starts before its predecessor ends"
    if (length := sum(s.length for s in spans)) != len(buckets):
        return f"{side} spans need {length} buckets, there are {len(buckets)}"
    if any(b < 0 for b in buckets):
        return f"a {side} bucket is negative"
    return None


def _custom_fault(h: Histogram) -> str | None:
    if h.negative_spans or h.negative_deltas or h.negative_counts:
        return "custom buckets cannot be negative"
    bounds = list(h.custom_values)
    if any(not a < b for a, b in pairwise(bounds)) or any(math.isnan(b) for b in bounds):
        return "custom bounds do not ascend"
    return None


def _count_fault(h: Histogram) -> str | None:
    found = sum(accumulate(h.negative_deltas)) + sum(accumulate(h.positive_deltas)) + h.zero_count_int
    # With a NaN sum some observations were NaN, and those are in no bucket.
    if found > h.count_int or (found != h.count_int and not math.isnan(h.sum)):
        return f"buckets hold {found} observations, count is {h.count_int}"
    return None
