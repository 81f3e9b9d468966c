"""CPU time of the front process for one group of 16 × 4 KB, reward `exact`, with keys, metrics and log on.

Beside it, in the same run and with the same bodies and load generator: a bare FastAPI route that only parses the body.
The load generator keeps a few connections busy with prepared requests; every body is different, so nothing comes from
the cache. CPU time is the process's own (utime + stime); workers and the load generator are not counted.

    .venv/bin/python benchmarks/front.py
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

BARE = """
import msgspec, sys, uvicorn
from fastapi import FastAPI, Request, Response
app = FastAPI()
decode = msgspec.json.Decoder().decode
@app.post("/v1/rewards/{name}")
async def score(name: str, request: Request):
    decode(await request.body())
    return Response(b'{}', media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""
GROUPS, CONNECTIONS, ROUNDS = 1_500, 4, 5
ALPHABET = string.ascii_letters + string.digits + "      .,+-=()"


def request(number: int) -> bytes:
    """One HTTP request with a group of its own."""
    text = "".join(random.Random(number).choices(ALPHABET, k=60_000))
    rollouts = [{"completion": text[i * 3_600 : i * 3_600 + 4_080] + rf"\boxed{{{i % 3}}}"} for i in range(16)]
    body = json.dumps({"task": {"prompt": "How many?", "reference": "1"}, "rollouts": rollouts}).encode()
    head = (
        "POST /v1/rewards/exact HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_reply(sock: socket.socket) -> None:
    """One whole reply, which must be a good one."""
    reply = sock.recv(1 << 18)
    while b"\r\n\r\n" not in reply:
        reply += sock.recv(1 << 18)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), reply[:300]
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(1 << 18)


def load(port: int, requests: list[bytes]) -> float:
    """Sends all requests over a few connections, one at a time on each; seconds taken."""
    todo = iter(requests)
    selector = selectors.DefaultSelector()
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        sock = socket.create_connection(("127.0.0.1", port))
        selector.register(sock, selectors.EVENT_READ)
        sock.sendall(next(todo))
    while selector.get_map():
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            read_reply(sock)
            following = next(todo, None)
            if following is None:
                selector.unregister(sock)
                sock.close()
            else:
                sock.sendall(following)
    return time.perf_counter() - began


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def wait_for(port: int) -> None:
    """Returns when the server answers."""
    for _ in range(500):
        try:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                if b" 503 " not in sock.recv(100):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit("the server did not start")


def main() -> None:
    print("preparing groups …", flush=True)
    requests = [request(number) for number in range(GROUPS)]
    servers = {
        "bare FastAPI, parses only": [sys.executable, "-c", BARE, "8151"],
        "rewardsvc, exact": [sys.executable, "-m", "rewardsvc", "serve", "--port", "8152"],
    }
    best: dict[str, float] = {}
    for round_number in range(ROUNDS):
        for name, command in servers.items():
            environment = os.environ | {"REWARDSVC_API_KEYS": "key"}
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            try:
                port = int(command[-1])
                wait_for(port)
                load(port, requests[:200])
                before = cpu_seconds(process.pid)
                seconds = load(port, requests[200:])
                count = GROUPS - 200
                cpu = (cpu_seconds(process.pid) - before) / count * 1e6
            finally:
                process.terminate()
                process.wait()
            best[name] = min(cpu, best.get(name, cpu))
            speed, busy = count / seconds, os.getloadavg()[0]
            print(f"{round_number}  {name:28} {cpu:6.0f} µs CPU/group  {speed:6.0f} groups/s  load {busy:.1f}")
    bare, ours = best.values()
    print(f"best: bare {bare:.0f} µs, rewardsvc {ours:.0f} µs (bar 320 µs), ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()
