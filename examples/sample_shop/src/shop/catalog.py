"""Products and how to find them."""

import json
from typing import Dict, List, Optional
from dataclasses import dataclass
import os


@dataclass(frozen=True)
class Product:
    """Something the shop sells; the price is in cents."""

    sku: str
    name: str
    price: int
    weight: int = 0


class Catalog:
    def __init__(self, products: List[Product]) -> None:
        self._products: Dict[str, Product] = {product.sku: product for product in products}

    def __len__(self) -> int:
        return len(self._products)

    def find(self, sku: str) -> Optional[Product]:
        return self._products.get(sku)

    def search(self, words: str) -> List[Product]:
        """Find products whose name has all the words, in any order."""
        wanted = words.lower().split()
        found = [
            product
            for product in self._products.values()
            if all(word in product.name.lower() for word in wanted)
        ]
        return sorted(found, key=lambda product: product.name)


def load_catalog(path: str) -> Catalog:
    with open(path, "r", encoding="utf-8") as file:
        return Catalog([Product(**entry) for entry in json.load(file)])


def default_catalog() -> Catalog:
    """Give the products the shop opened with."""
    return Catalog(
        [
            Product("MUG", "Blue mug", 1250, 350),
            Product("MUG-XL", "Big blue mug", 1799, 600),
            Product("TEA", "Green tea", 799, 100),
            Product("POT", "Cast iron tea pot", 8999, 2400),
        ]
    )
