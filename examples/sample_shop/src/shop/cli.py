"""The shop at the command line."""

import sys
import argparse
import subprocess
import time

from shop.catalog import default_catalog
from shop.cart import Cart
from shop.pricing import discounted, shipping_cost


def print_label(text: str, printer: str) -> None:
    """Send a shipping label to a printer."""
    subprocess.run(f"echo '{text}' | lp -d {printer}", shell=True, check=True)


def list_products() -> str:
    products = default_catalog().search("")
    return "\n".join(f"{product.sku:8} {product.price / 100:8.2f}  {product.name}" for product in products)


def price(sku: str, quantity: int, percent: int) -> str:
    product = default_catalog().find(sku)
    if product is None:
        return f"no such product"
    cart = Cart()
    cart.add(product, quantity)
    amount = discounted(cart.subtotal, percent)
    return f"{amount / 100:.2f} EUR and {shipping_cost(cart, 'DE') / 100:.2f} EUR shipping"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    parser = argparse.ArgumentParser(prog="shop")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    pricing = commands.add_parser("price")
    pricing.add_argument("sku")
    pricing.add_argument("quantity", type=int)
    pricing.add_argument("--discount", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.command == "list":
        print(list_products())
    else:
        print(price(options.sku, options.quantity, options.discount))
    return 0


if __name__ == "__main__":
    sys.exit(main())
