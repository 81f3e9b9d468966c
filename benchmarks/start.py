"""Time from start to ready, and memory of the whole tree: front, parent, minders and workers, with all shipped rewards.

RSS counts a page once for every process that maps it, PSS shares it out, so PSS is what the tree really takes.

    .venv/bin/python benchmarks/start.py
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time

import psutil

PORT, ROUNDS = 8153, 3


def ready() -> bool:
    """Whether /readyz is green."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    for _ in range(ROUNDS):
        began = time.perf_counter()
        command = [sys.executable, "-m", "rewardsvc", "serve", "--port", str(PORT)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not ready():
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        front = psutil.Process(process.pid)
        tree = [front, *front.children(recursive=True)]
        memory = [member.memory_full_info() for member in tree]
        pss, rss = (sum(getattr(info, kind) for info in memory) / 2**20 for kind in ("pss", "rss"))
        print(
            f"ready after {seconds:.2f} s (bar 3 s), {len(tree)} processes, PSS {pss:.0f} MiB (bar 250), "
            f"RSS {rss:.0f} MiB, front alone {memory[0].rss / 2**20:.0f} MiB, load {os.getloadavg()[0]:.1f}"
        )
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
