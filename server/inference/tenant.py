"""One model at the lanes: its encoders, what waits for it, and how fast it is."""

from server.inference.batching import BatchLimits, Job, Queue
from server.inference.speed import Speed
from server.inference.thread_choice import ThreadChoice
from server.types import Encoder


class Tenant:
    """A model that shares the lanes with others; `Lanes.admit` makes it, and only the lanes use it.

    used_s: seconds of the lanes' time that it has had; a model that comes back after a rest claims
    nothing for it. speed: of one lane, over all batches. lone_speed: of one text that has the CPU to
    itself. leaving: it is among the lanes' tenants only while texts wait.
    """

    def __init__(
        self, encoder: Encoder, limits: BatchLimits, wide: Encoder | None, lanes: int, rate: float
    ) -> None:
        self.encoder = encoder
        self.wide = wide
        self.queue = Queue(limits, encoder.packing, lanes)
        self.speed, self.lone_speed = Speed(rate), Speed(rate)
        self.used_s = 0.0
        self.leaving = False
        self._lanes = lanes
        self._threads = ThreadChoice()

    @property
    def rate(self) -> float:
        """Tokens per second of all lanes together."""
        return self.speed.rate * self._lanes

    @property
    def bounds(self) -> tuple[int, int]:
        """The tokens of interactive and of bulk jobs that may wait."""
        return self.queue.bounds(self.rate)

    def add(self, job: Job) -> None:
        """Queue a job; raises Overloaded or RequestTooLarge."""
        self.queue.add(job, job.arrived, self.rate)

    def check_room(self, texts: int, tokens: int) -> None:
        """Raise what `add` is certain to raise for so many texts of at least so many tokens."""
        self.queue.check_room(texts, tokens, self.rate)

    def encoder_for(self, *, alone: bool) -> Encoder:
        """Return the encoder for the next batch; alone: it has the CPU to itself."""
        return (
            self.wide
            if alone and self.wide is not None and self._threads.choose()
            else self.encoder
        )

    def observe(
        self, encoder: Encoder, texts: int, tokens: int, seconds: float, *, alone: bool
    ) -> None:
        """Take the time of one batch into account."""
        self.speed.observe(tokens, seconds)
        if alone:
            self._threads.observe(wide=encoder is self.wide, tokens=tokens, seconds=seconds)
            if texts == 1:
                self.lone_speed.observe(tokens, seconds)
