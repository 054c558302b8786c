"""Story 2 from a queue consumer; put your broker where the asyncio.Queue is."""

import asyncio
import os

from s2s_fastapi import service_client

NOTIFICATIONS_URL = os.environ.get("NOTIFICATIONS_URL", "http://localhost:8004")


async def consume(orders: asyncio.Queue[str | None]) -> None:
    """Tell the customer of each order until a None comes."""
    async with service_client(NOTIFICATIONS_URL, audience="notification-service") as client:
        while (order := await orders.get()) is not None:
            response = await client.post(
                "/notifications", json={"to": "customer", "text": f"order {order} is on its way"}
            )
            print(response.status_code)


async def main() -> None:
    """Consume three orders."""
    orders: asyncio.Queue[str | None] = asyncio.Queue()
    for order in ("1", "2", "3", None):
        await orders.put(order)
    await consume(orders)


if __name__ == "__main__":
    asyncio.run(main())
