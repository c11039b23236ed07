import pytest

from shop.cart import Cart
from shop.catalog import default_catalog
from shop.pricing import discounted, shipping_cost, tax


def test_discount_rounds_to_the_nearest_cent():
    assert discounted(1234, 15) == 1049


def test_no_discount():
    assert discounted(1999, 0) == 1999


def test_discount_out_of_range():
    with pytest.raises(ValueError, match="between 0 and 100"):
        discounted(1000, 101)


def test_tax_is_part_of_the_amount():
    assert tax(11900) == 1900


@pytest.mark.parametrize(("country", "cost"), [("DE", 299), ("NL", 699), ("US", 1299)])
def test_shipping_of_a_light_parcel(country, cost):
    cart = Cart()
    cart.add(default_catalog().find("TEA"))
    assert shipping_cost(cart, country) == cost
