"""gRPC model servers in a process of their own: `command(servers)` is what starts it, and it prints when it listens.

gRPC's threads stay where a process was when they began: a test that moves into a network has them in a child.
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc.aio

from tests.support.models import GrpcModel

LISTENING = "listening"


def command(servers):
    """For `servers`, a variant by address (`HOST:PORT`); it answers any unary method with the name of the variant."""
    return [sys.executable, "-m", "tests.support.grpc_child", json.dumps(servers)]


async def main(servers):
    running = []
    for address, variant in servers.items():
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((GrpcModel(variant),))
        if not server.add_insecure_port(address):
            raise OSError(f"cannot listen at {address}")
        await server.start()
        running.append(server)
    sys.stdout.write(f"{LISTENING}\n")
    sys.stdout.flush()
    await asyncio.gather(*(one.wait_for_termination() for one in running))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
