"""A relay as one writes it in an afternoon: a connection to the backend for each charge point, frames both ways."""

import asyncio
import sys

import websockets


async def forward(source, target) -> None:
    async for message in source:
        await target.send(message)


async def main(port: str, backend: str) -> None:
    async def relay(point) -> None:
        async with websockets.connect(
            f"ws://{backend}{point.request.path}", subprotocols=["ocpp1.6"], compression=None
        ) as upstream:
            ways = [asyncio.create_task(forward(point, upstream)), asyncio.create_task(forward(upstream, point))]
            _, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in pending:
                way.cancel()

    async with websockets.serve(relay, "127.0.0.1", int(port), subprotocols=["ocpp1.6"], compression=None):
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
