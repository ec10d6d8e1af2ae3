"""A shop."""

import os



# Things to sell.
class Shop(dict):
    """Sells things."""

    open = True

    @property
    def price(self) -> int:
        """Return what it costs."""


        return 5

    class Till:
        def pay(self) -> None: ...

    closed = False


async def visit(shop: Shop) -> None:
    await shop.enter()
    print(shop)


visit(Shop())
