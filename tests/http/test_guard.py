"""What stands in front of the routes, attacked over real sockets: keys, ids, encodings, sizes, and HTTP itself."""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.http.raw_http import RIGHT, Connection, Reply, ask, chunked, encoded, head, post

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from tests.conftest import Service, StartService

MIB = 1 << 20
BODY = encoded(RIGHT)


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, run_service: Callable[..., Iterator[Service]]
) -> Iterator[Service]:
    """A service with three keys, one of them given as its digest."""
    keys = f"first-key, second-key,sha256:{sha256(b'third-key').hexdigest()}"
    yield from run_service(tmp_path_factory.mktemp("guarded") / "log", api_keys=keys, workers="1")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, run_service: Callable[..., Iterator[Service]]) -> Iterator[Service]:
    """A service without keys."""
    yield from run_service(tmp_path_factory.mktemp("plain") / "log", workers="1")


class Usage:
    """CPU seconds and MiB that a service's front process used in the block."""

    def __init__(self, service: Service) -> None:
        self._process = psutil.Process(service.process.pid)

    def __enter__(self) -> Usage:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.mib = (now - then for now, then in zip(self._now(), self._before, strict=True))

    def _now(self) -> tuple[float, float]:
        times = self._process.cpu_times()
        return times.user + times.system, self._process.memory_info().rss / MIB


# Keys


@pytest.mark.parametrize("key", ["first-key", "second-key", "third-key"])
def test_each_of_several_keys_is_accepted(guarded: Service, key: str) -> None:
    assert ask(guarded.port, post(RIGHT, f"Authorization: Bearer {key}")).status == 200
    assert ask(guarded.port, post(RIGHT, f"authorization: bearer {key}")).status == 200


@pytest.mark.parametrize(
    "field",
    [
        "X-Other: 1",
        "Authorization:",
        "Authorization: Bearer",
        "Authorization: Basic first-key",
        "Authorization: first-key",
    ],
)
def test_without_a_key_it_is_401_and_says_which_scheme(guarded: Service, field: str) -> None:
    reply = ask(guarded.port, post(RIGHT, field))
    assert (reply.status, reply.slug, reply.headers["www-authenticate"]) == (401, "key-missing", "Bearer")


@pytest.mark.parametrize(
    "key",
    [
        "wrong",
        "first-key2",
        "first-ke",
        "FIRST-KEY",
        "first-key,second-key",
        f"sha256:{sha256(b'third-key').hexdigest()}",
    ],
)
def test_a_wrong_key_is_403(guarded: Service, key: str) -> None:
    reply = ask(guarded.port, post(RIGHT, f"Authorization: Bearer {key}"))
    assert (reply.status, reply.slug) == (403, "key-wrong")


def test_a_key_sent_twice_is_refused(guarded: Service) -> None:
    request = post(RIGHT, "Authorization: Bearer wrong", "Authorization: Bearer first-key")
    assert ask(guarded.port, request).status == 400


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/", "/docs", "/openapi.json"])
def test_pages_for_people_and_probes_are_open(guarded: Service, path: str) -> None:
    assert ask(guarded.port, head(f"GET {path}"), to="GET").status == 200


@pytest.mark.parametrize(
    "path", ["/metrics", "/v1/rewards", "/v1/rewards/exact", "/no-such-page", "/livez/", "//livez"]
)
def test_everything_else_needs_a_key(guarded: Service, path: str) -> None:
    assert ask(guarded.port, head(f"GET {path}"), to="GET").status == 401


@pytest.mark.parametrize(
    "path", ["/static-offline-docs/../metrics", "/static-offline-docs/%2e%2e/metrics", "/docs/../metrics"]
)
def test_an_open_prefix_opens_nothing_else(guarded: Service, path: str) -> None:
    assert ask(guarded.port, head(f"GET {path}"), to="GET").status in (401, 404)


def test_no_key_is_ever_logged(guarded: Service) -> None:
    ask(guarded.port, post(RIGHT, "Authorization: Bearer secret-attempt"))
    log = guarded.log.read_text()
    assert "key-wrong" in log
    assert not any(key in log for key in ("first-key", "second-key", "third-key", "secret-attempt"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_it_refuses_to_listen_beyond_loopback_without_a_key(start_service: StartService, host: str) -> None:
    with start_service(wait=False, arguments=("--host", host)) as service:
        assert service.process.wait(20) not in (0, None)
        assert "without a key" in service.log.read_text()


def test_it_listens_beyond_loopback_with_a_key(start_service: StartService) -> None:
    with start_service(arguments=("--host", "0.0.0.0"), workers="1", api_keys="key") as service:
        assert ask(service.port, post()).status == 401


def test_it_listens_beyond_loopback_when_told_to(start_service: StartService) -> None:
    with start_service(arguments=("--host", "0.0.0.0", "--insecure"), workers="1") as service:
        assert ask(service.port, post()).status == 200


def test_a_malformed_key_digest_stops_the_start(start_service: StartService) -> None:
    with start_service(wait=False, api_keys="sha256:1234") as service:
        assert service.process.wait(20) != 0
        assert "64 hexadecimal digits" in service.log.read_text()


# Request ids


@pytest.mark.parametrize("given", ["step-7/group-3", "a", "x" * 128, "!~{}\"'<>"])
def test_a_request_id_is_taken_and_echoed(plain: Service, given: str) -> None:
    reply = ask(plain.port, post(RIGHT, f"X-Request-ID: {given}"))
    assert reply.headers["x-request-id"] == reply.document["request_id"] == given


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "é", "tab\there"])
def test_a_request_id_that_is_none_is_replaced(plain: Service, given: str) -> None:
    reply = ask(plain.port, post(RIGHT, f"X-Request-ID: {given}"))
    assert reply.headers["x-request-id"] == reply.document["request_id"] != given
    assert reply.headers["x-request-id"].isalnum()


def test_two_requests_without_an_id_get_two(plain: Service) -> None:
    assert len({ask(plain.port, post()).headers["x-request-id"] for _ in range(5)}) == 5


# Compressed bodies


def sent(service: Service, encoding: str, body: bytes, *fields: str) -> Reply:
    return ask(service.port, post(body, f"Content-Encoding: {encoding}", *fields))


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "zstd", "identity"])
def test_compressed_bodies_are_read(plain: Service, encoding: str) -> None:
    packed = {"gzip": gzip.compress, "zstd": zstd.compress, "identity": bytes}[encoding.lower()](BODY)
    assert sent(plain, encoding, packed).document["verdicts"][0]["reward"] == 1.0


def gzip_bomb(blocks: int) -> bytes:
    """So many MiB of spaces in about a thousandth of the size."""
    packer = zlib.compressobj(9, wbits=31)
    first = packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + (packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)) * (blocks - 1)


def zstd_bomb(blocks: int) -> bytes:
    """So many MiB of spaces as blocks of one repeated byte (RFC 8878, 3.1.1.2), 128 KiB each in 4 bytes."""
    magic, descriptor, window_of_128_kib = b"\x28\xb5\x2f\xfd", b"\x00", b"\x38"
    repeat = (131_072 << 3 | 1 << 1).to_bytes(3, "little") + b" "
    return magic + descriptor + window_of_128_kib + repeat * (8 * blocks)


@pytest.mark.parametrize(("encoding", "bomb"), [("gzip", gzip_bomb), ("zstd", zstd_bomb)], ids=["gzip", "zstd"])
def test_a_bomb_of_10_gib_costs_no_more_than_an_honest_body(
    plain: Service, encoding: str, bomb: Callable[[int], bytes]
) -> None:
    sent(plain, encoding, bomb(33))
    with Usage(plain) as used:
        reply = sent(plain, encoding, bomb(10_240))
    assert (reply.status, reply.slug) == (413, "too-large")
    assert used.cpu < 1
    assert used.mib < 100


def test_the_bombs_are_no_duds() -> None:
    assert len(zlib.decompressobj(31).decompress(gzip_bomb(3))) == 3 * MIB
    assert len(zstd.ZstdDecompressor().decompress(zstd_bomb(3))) == 3 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_that_is_broken_is_400(plain: Service, encoding: str) -> None:
    packed = {"gzip": gzip.compress, "zstd": zstd.compress}[encoding](BODY)
    for body in (packed[:-1], packed[:10], packed[:20] + b"\xff" + packed[21:], packed * 2, packed + b"x", BODY, b""):
        reply = sent(plain, encoding, body)
        assert (reply.status, reply.slug) == (400, "not-json"), body


def test_an_encoding_within_an_encoding_is_no_json(plain: Service) -> None:
    assert sent(plain, "gzip", gzip.compress(gzip.compress(BODY))).slug == "not-json"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip, zstd", "br", "deflate", "compress", "", "gzip;q=1", "utf-8"])
def test_unknown_and_stacked_encodings_are_415(plain: Service, encoding: str) -> None:
    reply = sent(plain, encoding, gzip.compress(BODY))
    assert (reply.status, reply.slug) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "field",
    [
        "Content-Encoding: identity",
        "Content-Type: text/plain",
        "Host: y",
        "X-Request-ID: b",
        "Transfer-Encoding: chunked",
    ],
)
def test_a_header_that_matters_must_not_stand_twice(plain: Service, field: str) -> None:
    fields = [
        "Content-Encoding: identity",
        "X-Request-ID: a",
        "Transfer-Encoding: chunked",
        "Content-Type: application/json",
    ]
    reply = ask(plain.port, head("POST /v1/rewards/exact", *fields, field) + chunked(BODY))
    assert reply.status == 400


# Sizes


def test_100_mb_are_refused_by_their_length_alone(plain: Service) -> None:
    with Usage(plain) as used, Connection(plain.port) as connection:
        reply = connection.send(post(b"", length=100_000_000)).reply()
    assert (reply.status, reply.slug) == (413, "too-large")
    assert used.cpu < 0.5
    assert used.mib < 20


def test_100_mb_sent_to_the_end_leave_the_connection_usable(plain: Service) -> None:
    with Usage(plain) as used, Connection(plain.port) as connection:
        connection.send(post(b"", length=100 * MIB), *[b" " * MIB] * 100)
        assert connection.reply().status == 413
        assert connection.send(post()).reply().status == 200
    assert used.mib < 50


def test_an_endless_chunked_body_is_cut_off(plain: Service) -> None:
    fields = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    with Usage(plain) as used, Connection(plain.port) as connection:
        connection.send(head("POST /v1/rewards/exact", *fields))
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                connection.send(b"%x\r\n" % MIB, b" " * MIB, b"\r\n")
    assert used.mib < 150
    assert ask(plain.port, post()).status == 200


def test_a_chunked_body_over_the_limit_is_413(plain: Service) -> None:
    fields = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    with Connection(plain.port) as connection:
        connection.send(head("POST /v1/rewards/exact", *fields), chunked(*[b" " * MIB] * 33))
        assert connection.reply().slug == "too-large"
        assert connection.send(post()).reply().status == 200


def test_bodies_on_their_way_count_for_the_memory_set_aside(start_service: StartService) -> None:
    with start_service(max_waiting_mb="8", workers="1") as service:
        held = [Connection(service.port).send(post(b" " * (3 * MIB), length=4 * MIB)) for _ in range(6)]
        replies = [ask(service.port, post(BODY + b" " * (3 * MIB))) for _ in range(2)]
        assert {reply.slug for reply in replies} == {"overloaded"}
        assert {reply.headers["retry-after"] for reply in replies} == {"1"}
        assert psutil.Process(service.process.pid).memory_info().rss < 200 * MIB
        for connection in held:
            connection.close()
        assert within(5, lambda: ask(service.port, post(BODY + b" " * (3 * MIB))).status == 200)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_body_shorter_than_announced_is_not_judged(plain: Service) -> None:
    before = plain.metric("rewardsvc_group_size_count")
    with Connection(plain.port) as connection:
        connection.send(post(BODY, length=len(BODY) + 1))
        time.sleep(0.1)
    assert plain.metric("rewardsvc_group_size_count") == before


def test_a_body_longer_than_announced_is_cut_there(plain: Service) -> None:
    with Connection(plain.port) as connection:
        connection.send(post(BODY, length=len(BODY) - 1))
        assert connection.reply().slug == "not-json"
        assert connection.reply().status == 0  # the brace that is left over begins no request


# HTTP


@pytest.mark.parametrize(
    "path", ["/livez", "/v1/rewards", "/v1/rewards/exact", "/docs", "/", "/metrics", "/openapi.json"]
)
def test_head_is_get_without_the_body(plain: Service, path: str) -> None:
    with Connection(plain.port) as connection:
        got = connection.send(head(f"GET {path}")).reply("GET")
        alone = connection.send(head(f"HEAD {path}")).reply("HEAD")
        assert (alone.status, alone.body) == (200, b"")
        assert alone.headers["content-type"] == got.headers["content-type"]
        assert connection.send(head("GET /livez")).reply("GET").status == 200


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_405_and_say_which_are_allowed(plain: Service, method: str) -> None:
    for path, allowed in (
        ("/livez", "GET, HEAD"),
        ("/v1/rewards", "GET, HEAD"),
        ("/v1/rewards/exact", "GET, HEAD, POST"),
    ):
        reply = ask(plain.port, head(f"{method} {path}", "X-Secret: canary"))
        assert (reply.status, reply.slug, reply.headers["allow"]) == (405, "method-not-allowed", allowed)
        assert b"canary" not in reply.body


def test_post_is_405_where_nothing_is_scored(plain: Service) -> None:
    assert ask(plain.port, head("POST /livez", "Content-Length: 0")).status == 405
    assert ask(plain.port, head("POST /v1/rewards", "Content-Length: 0")).status == 405


@pytest.mark.parametrize(
    "path",
    ["/no-such-page", "/livez/", "//livez", "/v1", "/v1/rewards/", "/v1/rewards/no_such_reward", "/V1/rewards", "/%00",
     "/..", "/static-offline-docs/../../../etc/passwd", "/static-offline-docs/%2e%2e/%2e%2e/etc/passwd",
     "/v1/rewards/%ff%zz"],
)  # fmt: skip
def test_an_unknown_path_is_404(plain: Service, path: str) -> None:
    reply = ask(plain.port, head(f"GET {path}"), to="GET")
    assert (reply.status, reply.slug) == (404, "not-found")


def test_an_unknown_reward_is_404(plain: Service) -> None:
    for name in ("no_such_reward", "Exact", "exact/", "a" * 5_000, "%00", "..%2fexact"):
        assert ask(plain.port, post(RIGHT, reward=name)).slug == "not-found"


BROKEN = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no such version": b"GET /livez HTTP/3.7\r\nHost: x\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "bare line feed after a header": b"GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare carriage return": b"GET /livez HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "folded header": head("GET /livez", "X-Request-ID: a\r\n b"),
    "space before the colon": b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
    "header without a colon": head("GET /livez", "Host"),
    "NUL in a header": head("GET /livez", "X: a\0b"),
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "raw bytes in the path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "length and chunked": post(RIGHT, "Transfer-Encoding: chunked"),
    "two lengths": post(RIGHT, "Content-Length: 5"),
    "list of lengths": post(RIGHT, length=0).replace(b"Content-Length: 0", b"Content-Length: 5, 5"),
    "negative length": post(RIGHT, length=-5),
    "length with a sign": post(RIGHT).replace(b"Content-Length: ", b"Content-Length: +"),
    "length in letters": post(RIGHT).replace(b"Content-Length: ", b"Content-Length: 0x"),
    "length of 5,000 digits": post(RIGHT).replace(b"Content-Length: ", b"Content-Length: " + b"9" * 5_000),
}
TRANSFERS = {
    "chunked, then identity": "chunked, identity",
    "chunked, then gzip": "chunked, gzip",
    "chunked twice": "chunked, chunked",
    "almost chunked": "xchunked",
    "chunked with a parameter": "chunked;q=1",
    "chunked behind a vertical tab": "\x0bchunked",
    "identity": "identity",
}
CHUNKS = {
    "size in letters": b"zz\r\n{}\r\n0\r\n\r\n",
    "negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "size of 20 digits": b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n",
    "bare line feed after the size": b"2\n{}\r\n0\r\n\r\n",
    "bare line feed after an extension": b"2;a=b\n{}\r\n0\r\n\r\n",
    "chunk longer than its size": b"1\r\n{}\r\n0\r\n\r\n",
}
CHUNKED = head("POST /v1/rewards/exact", "Content-Type: application/json", "Transfer-Encoding: chunked")
BROKEN |= {
    name: CHUNKED.replace(b": chunked", f": {value}".encode()) + chunked(BODY) for name, value in TRANSFERS.items()
}
BROKEN |= {name: CHUNKED + chunks for name, chunks in CHUNKS.items()}


@pytest.mark.parametrize("request_", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_request_is_400_and_nothing_behind_it_is_read(plain: Service, request_: bytes) -> None:
    with Connection(plain.port) as connection:
        connection.send(request_ + head("GET /smuggled"))
        reply = connection.reply()
        assert (reply.status, reply.slug) == (400, "malformed-request")
        if reply.headers.get("connection") != "close":
            assert request_ == BROKEN["no Host"]
            return
        assert connection.reply().status == 0


def test_a_transfer_coding_that_is_not_undone_is_415(plain: Service) -> None:
    request = CHUNKED.replace(b": chunked", b": gzip, chunked") + chunked(gzip.compress(BODY))
    assert ask(plain.port, request).slug == "unsupported-media-type"


def test_trailers_are_no_headers(plain: Service) -> None:
    trailed = CHUNKED + chunked(BODY)[:-2] + b"X-Request-ID: forged\r\nContent-Type: text/plain\r\n\r\n"
    reply = ask(plain.port, trailed)
    assert reply.status == 200
    assert reply.headers["x-request-id"] != "forged"


def test_chunk_extensions_are_ignored(plain: Service) -> None:
    assert ask(plain.port, CHUNKED + chunked(BODY[:9], BODY[9:]).replace(b"9\r\n", b"9;a=b\r\n", 1)).status == 200


def test_a_header_flood_is_413(plain: Service) -> None:
    for flood in ([b"X: y\r\n" * 20_000], [b"X: " + b"y" * 100_000], [b"X: y\r\n"] * 20_000):
        with Usage(plain) as used, Connection(plain.port) as connection:
            try:
                connection.send(head("GET /livez")[:-2], *flood)
            except ConnectionError:
                continue
            assert connection.reply("GET").slug == "too-large"
        assert used.mib < 20


def test_an_endless_path_is_413(plain: Service) -> None:
    assert ask(plain.port, b"GET /" + b"a" * 100_000, to="GET").slug == "too-large"


def test_pipelined_requests_are_answered_in_order(plain: Service) -> None:
    with Connection(plain.port) as connection:
        connection.send(*[post(RIGHT, f"X-Request-ID: {number}") + head(f"GET /{number}") for number in range(5)])
        for number in range(5):
            assert connection.reply().headers["x-request-id"] == str(number)
            assert connection.reply("GET").status == 404


def slow(seconds: str) -> bytes:
    """A request that takes so long; each of these tests has a time of its own, so that nothing comes from the cache."""
    return post({"rollouts": [{"completion": seconds}]}, reward="patient")


def test_what_is_broken_behind_a_request_does_not_cost_it_its_reply(service_with_plugins: Service) -> None:
    broken = (b"\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", head("GET /livez", "X: " + "y" * 400_000), CHUNKED + b"zz\r\n")
    for number, behind in enumerate(broken):
        with Connection(service_with_plugins.port) as connection:
            connection.send(slow(f"0.30{number}") + behind)
            assert connection.reply().document["verdicts"][0]["reason"] == "waited"
            assert connection.reply().status == 0


def test_a_flood_of_pipelined_requests_takes_no_memory(service_with_plugins: Service) -> None:
    flood = slow("0.5") + head("GET /livez") * 20_000
    with Usage(service_with_plugins) as used, Connection(service_with_plugins.port) as connection:
        connection.send(flood)
        assert connection.reply().status == 200
    assert used.mib < 30


def test_expect_100_continue_is_answered_before_the_body_is_read(plain: Service) -> None:
    request = post(RIGHT, "Expect: 100-continue")
    with Connection(plain.port) as connection:
        assert connection.send(request[: -len(BODY)]).reply().status == 100
        assert connection.send(BODY).reply().status == 200


def test_expect_100_continue_is_refused_when_the_body_would_be(plain: Service) -> None:
    with Connection(plain.port) as connection:
        assert connection.send(post(b"", "Expect: 100-continue", length=100_000_000)).reply().status == 413


def test_a_wish_to_upgrade_is_ignored(plain: Service) -> None:
    wish = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
    with Connection(plain.port) as connection:
        assert connection.send(post(RIGHT, *wish) + head("GET /livez")).reply().status == 200
        assert connection.reply("GET").status == 200
        websocket = head("GET /livez", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        assert connection.send(websocket).reply("GET").status == 200


def test_connect_is_refused(plain: Service) -> None:
    assert (
        ask(plain.port, b"CONNECT example.org:80 HTTP/1.1\r\nHost: example.org:80\r\n\r\n").slug == "method-not-allowed"
    )


def test_http_1_0_is_answered_and_closed(plain: Service) -> None:
    with Connection(plain.port) as connection:
        assert connection.send(b"GET /livez HTTP/1.0\r\n\r\n").reply("GET").status == 200
        assert connection.reply().status == 0


def test_a_strange_host_breaks_no_page(plain: Service) -> None:
    for host in ("[", "a b", "<script>alert(1)</script>", "x" * 10_000):
        reply = ask(plain.port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), to="GET")
        assert reply.status in (200, 400)
        assert b"<script>alert" not in reply.body


def test_after_all_this_the_front_is_small_and_holds_no_connection(plain: Service) -> None:
    front = psutil.Process(plain.process.pid)
    assert within(5, lambda: not [link for link in front.net_connections() if link.status == "CLOSE_WAIT"])
    assert front.memory_info().rss < 400 * MIB
    assert "Traceback" not in plain.log.read_text()
