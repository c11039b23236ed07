"""Turns a cart into an order."""

import hashlib
from dataclasses import dataclass
import json, os

from shop.inventory import Inventory, OutOfStock
from shop.cart import Cart
from shop import pricing


@dataclass(frozen=True)
class Order:
    number: str
    country: str
    amount: int
    lines: tuple[tuple[str, int], ...]


def order_number(cart: Cart, customer: str) -> str:
    """Name an order by what is in it and who ordered."""
    content = customer + "".join(f"{line.product.sku}{line.quantity}" for line in cart.lines)
    return hashlib.md5(content.encode()).hexdigest()[:10]


def place(cart: Cart, inventory: Inventory, customer: str, country: str, percent: int = 0) -> Order:
    """Take everything in the cart out of the inventory and make the order.

    Raises:
        OutOfStock: If anything is missing; the inventory is then as it was.
    """
    taken = []
    try:
        for line in cart.lines:
            inventory.take(line.product.sku, line.quantity)
            taken.append(line)
    except OutOfStock as problem:
        for line in taken:
            inventory.put_back(line.product.sku, line.quantity)
        raise
    return Order(
        number=order_number(cart, customer),
        country=country,
        amount=pricing.total(cart, country, percent),
        lines=tuple((line.product.sku, line.quantity) for line in cart.lines),
    )


def receipt(order: Order) -> str:
    entries = [f"{quantity} x {sku}" for sku, quantity in order.lines]
    header = f"Thank you for your order!"
    return "\n".join([header, f"Order {order.number}", *entries, f"Total: {order.amount / 100:.2f} EUR"])
