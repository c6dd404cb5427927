"""Every error raised on purpose.

OpenAnomalyError
+-- ConfigError            a setting or pipeline is wrong; refuse to start, or HTTP 422
|   +-- UnknownPipelineError (404), PipelineExistsError (409), PipelineChangedError (412)
+-- RejectedError          the same data will never pass: 4xx, the sender drops it
|   +-- MalformedRequestError (400), UnsupportedMediaError (415), RequestTooLargeError (413)
|   +-- MalformedFrameError, UnknownVersionError: a record for the dead-letter topic
|   +-- QueryRejectedError   a time-series database refuses a query
|   |   +-- AnswerTooLargeError   its answer is above a limit of ours
+-- RetryableError         the same data may pass later: HTTP 503, the sender repeats it
|   +-- BusUnavailableError, SinkUnavailableError, StoreUnavailableError, TsdbUnavailableError
|   +-- EngineLostError    a model that worked does no more; the process must restart
+-- BrokerError            the embedded broker cannot work: in use, corrupt, or out of disk
+-- DeliveryError          records are missing where none may be; the process must restart and re-read
+-- RestartNeededError     pipelines changed in a way that only a new process can take over
+-- TrialError             a trial of the playground did not come to its end
+-- ForecastError          this batch has no new forecast; the old ones serve on, and it is counted
"""


class OpenAnomalyError(Exception):
    """Root of all errors raised on purpose."""


class ConfigError(OpenAnomalyError):
    """A setting or pipeline is wrong."""


class UnknownPipelineError(ConfigError):
    """There is no pipeline of that name."""


class PipelineExistsError(ConfigError):
    """The name of a new pipeline is taken."""


class PipelineChangedError(ConfigError):
    """A pipeline is not any more as its changer read it."""


class RejectedError(OpenAnomalyError):
    """The same data will never pass."""

    status = 400


class MalformedRequestError(RejectedError):
    """The body is not what its headers say."""


class UnsupportedMediaError(RejectedError):
    """The content type or encoding is not one we speak."""

    status = 415


class RequestTooLargeError(RejectedError):
    """The body is above a limit."""

    status = 413


class MalformedFrameError(RejectedError):
    """A record on the broker cannot be read."""


class UnknownVersionError(MalformedFrameError):
    """A record on the broker was written by a newer release."""


class QueryRejectedError(RejectedError):
    """A time-series database refuses a query for good."""

    status = 422


class AnswerTooLargeError(QueryRejectedError):
    """What a query gives is above a limit of ours."""


class RetryableError(OpenAnomalyError):
    """The same data may pass later."""


class BusUnavailableError(RetryableError):
    """The broker did not take the records in time."""


class SinkUnavailableError(RetryableError):
    """The target of the scores does not take them now."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreUnavailableError(RetryableError):
    """The store of pipeline definitions cannot be reached."""


class TsdbUnavailableError(RetryableError):
    """A time-series database did not answer a query."""


class EngineLostError(RetryableError):
    """A model that worked does no more."""


class BrokerError(OpenAnomalyError):
    """The broker cannot work until a person acts."""


class DeliveryError(OpenAnomalyError):
    """Records are missing where none may be."""


class RestartNeededError(OpenAnomalyError):
    """A new process must read its state again."""


class ForecastError(OpenAnomalyError):
    """A batch has no new forecast."""

    def __init__(self, message: str, reason: str = "engine") -> None:
        super().__init__(message)
        self.reason = reason


class TrialError(OpenAnomalyError):
    """A trial of the playground did not come to its end."""
