import pytest

from shop.cart import Cart
from shop.catalog import default_catalog


@pytest.fixture
def cart():
    return Cart()


def test_search_needs_all_words():
    assert [product.sku for product in default_catalog().search("mug blue")] == ["MUG-XL", "MUG"]


def test_unknown_product():
    assert default_catalog().find("SPOON") is None


def test_adding_twice_makes_one_line(cart):
    mug = default_catalog().find("MUG")
    cart.add(mug)
    cart.add(mug, 2)
    assert [(line.product.sku, line.quantity) for line in cart.lines] == [("MUG", 3)]


def test_quantity_must_be_positive(cart):
    with pytest.raises(ValueError, match="at least one"):
        cart.add(default_catalog().find("TEA"), 0)


def test_remove(cart):
    cart.add(default_catalog().find("TEA"))
    cart.remove("TEA")
    assert cart.subtotal == 0


def test_subtotal_and_weight(cart):
    cart.add(default_catalog().find("MUG"), 2)
    cart.add(default_catalog().find("TEA"))
    assert (cart.subtotal, cart.weight) == (3299, 800)
