import pytest

from shop.cart import Cart
from shop.catalog import default_catalog
from shop.cli import main
from shop.inventory import Inventory, OutOfStock
from shop.orders import place, receipt


def filled_cart():
    cart = Cart()
    cart.add(default_catalog().find("MUG"), 2)
    cart.add(default_catalog().find("POT"))
    return cart


def test_an_order_takes_from_the_inventory():
    inventory = Inventory({"MUG": 5, "POT": 1})
    order = place(filled_cart(), inventory, "ada", "DE")
    assert order.amount == 11499 + 799
    assert inventory.counts == {"MUG": 3, "POT": 0}


def test_nothing_is_taken_when_something_is_missing():
    inventory = Inventory({"MUG": 5})
    with pytest.raises(OutOfStock):
        place(filled_cart(), inventory, "ada", "DE")
    assert inventory.counts["MUG"] == 5


def test_receipt_names_every_line():
    order = place(filled_cart(), Inventory({"MUG": 2, "POT": 1}), "ada", "DE")
    assert "2 x MUG" in receipt(order)


def test_inventory_survives_a_restart(tmp_path):
    Inventory({"TEA": 4}).save(tmp_path / "stock")
    assert Inventory.load(tmp_path / "stock").available("TEA") == 4


def test_command_line_lists_products(capsys):
    assert main(["list"]) == 0
    assert "Green tea" in capsys.readouterr().out
