"""Two hosts on this machine: network namespaces, joined by a virtual cable that can be cut or slowed down.

Needs root, and iproute2 (`ip`, `tc`). Nothing outside the two namespaces is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 20  # that a command may take
LATENCY = "50ms"  # the longest that a packet waits for its turn in a slow cable


def why_not() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if shutil.which("ip") is None or shutil.which("tc") is None or os.geteuid() != 0:
        return "needs root and iproute2's `ip` and `tc`"
    name = f"sv{os.getpid()}t"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=SECONDS)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=SECONDS)
    return f"`ip netns add` fails here: {tried.stderr.strip()}" if tried.returncode else ""


class TwoHosts:
    """Two namespaces with host names and addresses (10.213.77.1 and .2) of their own.

    names: of the namespace, of the host, and of its end of the cable.
    """

    addresses = ("10.213.77.1", "10.213.77.2")

    def __init__(self) -> None:
        self.names = [f"sv{os.getpid()}{side}" for side in "ab"]  # no other process has them

    @classmethod
    @contextmanager
    def built(cls) -> Iterator[TwoHosts]:
        """The hosts, which are gone in the end; CalledProcessError where they cannot be."""
        hosts = cls()
        try:
            hosts._build()
            yield hosts
        finally:
            hosts._remove()

    def command(self, host: int, *words: str) -> list[str]:
        """That runs `words` on this host."""
        name = self.names[host]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *words]

    def cable(self, state: str) -> None:
        """`up`, or `down`: cut at the second host."""
        for name in self.names if state == "up" else self.names[1:]:
            _run("ip", "-n", name, "link", "set", name, state)

    def slow_down(self, gigabits: float) -> None:
        """Let no more than so many Gbit pass in a second, in either direction."""
        burst = max(
            32_000, int(gigabits * 1e9 / 8 / 250)
        )  # enough bytes for 1/250 s, the longest between two ticks of a kernel's clock
        shape = ["rate", f"{int(gigabits * 1e9)}", "burst", f"{burst}", "latency", LATENCY]
        for name in self.names:
            _run("tc", "-n", name, "qdisc", "replace", "dev", name, "root", "tbf", *shape)

    def _build(self) -> None:
        for name in self.names:
            _run("ip", "netns", "add", name)
            hosts = Path("/etc/netns") / name / "hosts"  # `ip netns exec` shows this file as /etc/hosts
            hosts.parent.mkdir(parents=True)
            known = [("127.0.0.1", "localhost"), *zip(self.addresses, self.names)]
            hosts.write_text("".join(f"{address} {host}\n" for address, host in known))
        first, second = self.names
        _run("ip", "link", "add", first, "netns", first, "type", "veth", "peer", "name", second, "netns", second)
        for name, address in zip(self.names, self.addresses):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        self.cable("up")

    def _remove(self) -> None:
        for name in self.names:  # the cable goes with them
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=SECONDS)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=SECONDS)
