"""A gateway in a process of its own, on a listening socket that it was handed.

`python -m tests.fakes_gateway_worker FD SLOT_URL` prints a line once it takes callers, and drains at SIGTERM.
"""

import asyncio
import signal
import socket
import sys

import uvloop
from pydantic import SecretStr

from serving.gateway import Gateway
from serving.gateway_commons import alone
from serving.gateway_door import Door
from serving.gateway_house import OwnHouse
from serving.metrics import GatewayMetrics
from serving.routing import Backend, RoutingTable, champion_route
from serving.upstream import Upstream
from tests.fakes_gateway import PUBLIC_NAME, SLOT_KEY, key_ring, settings_for_tests


async def _serve(listener: socket.socket, slot_url: str) -> None:
    table = RoutingTable({PUBLIC_NAME: champion_route(PUBLIC_NAME, Backend("clinic-1", slot_url, SecretStr(SLOT_KEY), "clinic-1"))})
    settings, stop, metrics = settings_for_tests(), asyncio.Event(), GatewayMetrics()
    house, upstream = OwnHouse(settings, metrics), Upstream(connect_timeout_s=1)
    door = Door(Gateway(settings, table, key_ring(), upstream, metrics.traffic, house, alone(settings)), settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await door.open(listener)
    print("open", flush=True)
    await stop.wait()
    await door.close(20)


if __name__ == "__main__":
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]))
