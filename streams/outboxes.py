"""The outboxes of one topic: made as its partitions are needed, closed when they are lost."""

from collections.abc import Callable, Collection, Iterable, Sequence

from streams.kafka.publisher import Outbox, Outgoing, Publisher, TooLarge


class Outboxes:
    """An outbox for each partition of a topic that something is sent to.

    Args:
        topic: Where to.
        publisher: Gives the publisher, which only exists once the broker is connected.
        failed: Called with the reason each time a batch did not go through.
        acknowledged: Called with the numbers of records that all replicas have.
        too_large: See `Outbox`.
    """

    def __init__(
        self,
        topic: str,
        publisher: Callable[[], Publisher],
        failed: Callable[[str], None],
        *,
        acknowledged: Callable[[Sequence[int]], None],
        too_large: TooLarge | None = None,
    ) -> None:
        self._topic, self._publisher, self._failed = topic, publisher, failed
        self._acknowledged, self._too_large = acknowledged, too_large
        self._of: dict[int, Outbox] = {}

    def put(self, partition: int, records: Iterable[Outgoing]) -> None:
        """Take records to send to a partition."""
        outbox = self._of.get(partition)
        if outbox is None:
            outbox = self._of[partition] = self._publisher().outbox(
                self._topic, partition, self._acknowledged, self._failed, self._too_large
            )
        outbox.put(records)

    def problems(self) -> list[str]:
        """Say what does not get out, and why."""
        return [
            f"{self._topic}/{partition} is not published: {outbox.problem}"
            for partition, outbox in self._of.items()
            if outbox.problem
        ]

    def keep_only(self, partitions: Collection[int]) -> None:
        """Send nothing more to other partitions: their next owner decides what happened."""
        for partition in [n for n in self._of if n not in partitions]:
            self._of.pop(partition).close()

    def close(self) -> None:
        """Send nothing more."""
        self.keep_only(())
