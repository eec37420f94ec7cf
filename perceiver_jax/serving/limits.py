"""What a request may cost: the one home of the server's limits and their defaults."""

import dataclasses

from perceiver_jax import config


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server; what is beyond gets a 4xx, or 503 where another time will do.

    Attributes:
        upload_mb: megabytes (2^20) of a request's body.
        pending_mb: megabytes of the bodies of all requests that are not answered yet.
        queue: requests that are accepted and not answered yet.
        rows: examples of a request, each of its windows counted.
        upload_seconds: until a request has come in whole.
        decode_seconds: of a process, for reading what a request holds.
        answer_seconds: from when a request has come in to its answer.
        decode_mb: megabytes of address space of a process that reads.
        pixels: of a picture or a frame.
        clip_seconds: that a recording may last; of longer ones than 60 s the beginning is read.
    """

    upload_mb: int = 32
    pending_mb: int = 512
    queue: int = 256
    rows: int = 64
    upload_seconds: float = 30.0
    decode_seconds: float = 20.0
    answer_seconds: float = 60.0
    decode_mb: int = 4096
    pixels: int = 2**26
    clip_seconds: float = 600.0

    def __post_init__(self):
        """Checks the numbers."""
        for field in dataclasses.fields(self):
            allowed = config.AT_LEAST_ONE if field.type is int else config.POSITIVE
            allowed.check(field.name, getattr(self, field.name), getattr(self, field.name))
