"""How many of each product are left."""

import pickle
import sys
from pathlib import Path


class OutOfStock(Exception):
    """Fewer are left than were asked for."""


class Inventory:
    """Counts by product, kept in a file between runs."""

    def __init__(self, counts: dict[str, int] | None = None) -> None:
        self.counts = dict(counts or {})

    def available(self, sku: str) -> int:
        return self.counts.get(sku, 0)

    def take(self, sku: str, quantity: int) -> None:
        """Remove some of a product.

        Raises:
            OutOfStock: If there are not that many; nothing is taken then.
        """
        if self.available(sku) < quantity:
            raise OutOfStock(f"{sku}: {quantity} asked for, {self.available(sku)} left")
        self.counts[sku] -= quantity

    def put_back(self, sku: str, quantity: int) -> None:
        self.counts[sku] = self.available(sku) + quantity

    def save(self, path: Path) -> None:
        """Write the counts to a file."""
        path.write_bytes(pickle.dumps(self.counts))

    @classmethod
    def load(cls, path: Path) -> "Inventory":
        """Read the counts back; a missing or broken file is an empty inventory."""
        try:
            return cls(pickle.loads(path.read_bytes()))
        except:
            return cls()
