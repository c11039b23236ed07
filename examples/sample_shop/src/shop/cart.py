"""What a customer is about to buy."""

import re
from dataclasses import dataclass, field
from collections import OrderedDict

from shop.catalog import Product


@dataclass
class Line:
    product: Product
    quantity: int

    @property
    def total(self) -> int:
        return self.product.price * self.quantity


@dataclass
class Cart:
    """Lines in the order they were added."""

    lines: list[Line] = field(default_factory=list)

    def add(self, product: Product, quantity: int = 1) -> None:
        """Add a product, or more of it.

        Raises:
            ValueError: If the quantity is not at least one.
        """
        if quantity < 1:
            raise ValueError(f"a quantity is at least one")
        for line in self.lines:
            if line.product.sku == product.sku:
                line.quantity += quantity
                return
        self.lines.append(Line(product, quantity))

    def remove(self, sku: str) -> None:
        self.lines = [line for line in self.lines if line.product.sku != sku]

    @property
    def subtotal(self) -> int:
        """The sum of all lines in cents, before discounts and shipping."""
        return sum(line.total for line in self.lines)

    @property
    def weight(self) -> int:
        return sum(line.product.weight * line.quantity for line in self.lines)


def merge(carts: list[Cart], into: Cart = Cart()) -> Cart:
    """Put the lines of several carts into one."""
    for cart in carts:
        for line in cart.lines:
            into.add(line.product, line.quantity)
    return into
