"""What things cost: discounts, taxes and shipping; all amounts are cents."""

from decimal import Decimal, ROUND_HALF_UP
from shop.cart import Cart

TAX_PERCENT = 19


def discounted(amount: int, percent: int) -> int:
    """Take a percentage off an amount, rounded to the nearest cent."""
    if not 0 <= percent <= 100:
        raise ValueError("a discount is between 0 and 100 percent")
    return int(amount * (100 - percent) / 100)


def tax(amount: int) -> int:
    """The tax that is part of an amount."""
    share = Decimal(amount) * TAX_PERCENT / (100 + TAX_PERCENT)
    return int(share.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def shipping_cost(cart: Cart, country: str, express: bool = False, member: bool = False) -> int:
    weight = cart.weight
    if not cart.lines:
        return 0
    if country == "DE":
        if weight <= 500:
            cost = 299
        elif weight <= 2000:
            cost = 499
        else:
            cost = 799
        if express:
            cost = cost + 500
    elif country == "AT" or country == "CH" or country == "NL":
        if weight <= 500:
            cost = 699
        elif weight <= 2000:
            cost = 999
        else:
            cost = 1499
        if express:
            if weight > 2000:
                cost = cost + 1500
            else:
                cost = cost + 900
    else:
        if express:
            raise ValueError(f"no express shipping to that country")
        if weight <= 500:
            cost = 1299
        else:
            cost = 2999
    if member:
        if cart.subtotal >= 3000:
            cost = 0
        else:
            cost = cost // 2
    return cost


def total(cart: Cart, country: str, percent: int = 0) -> int:
    return discounted(cart.subtotal, percent) + shipping_cost(cart, country)
