"""Notes every attempt of a Python process to reach another machine in the file ``TRIPWIRE`` names."""

import os
import sys


def _watch(event: str, args: tuple) -> None:
    # addresses of sockets on this machine are paths
    reaches = event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request") or (
        event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(args[-1], tuple)
    )
    if reaches:
        with open(os.environ["TRIPWIRE"], "a") as file:
            file.write(f"{event} {args[1:]}\n")


sys.addaudithook(_watch)
