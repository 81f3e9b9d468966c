"""Spans reach an OTLP collector, continue the caller's trace, and carry nothing that a caller or a policy wrote."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import StartService

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    """Keeps the spans that it is sent."""

    spans: list[Any]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            exported = ExportTraceServiceRequest.FromString(body)
            for resource in exported.resource_spans:
                for scope in resource.scope_spans:
                    server.spans += scope.spans
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = Collector(("127.0.0.1", 0), Handler)
    server.spans = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_group_makes_at_most_four_spans_in_the_callers_trace(
    start_service: StartService, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    with start_service(otlp_endpoint=endpoint) as service:
        request = {"task": {"reference": "canary"}, "rollouts": [{"completion": "canary"}]}
        status, _ = service.post("exact", request, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert status == 200
        end = time.monotonic() + 20
        while not collector.spans and time.monotonic() < end:
            time.sleep(0.05)
    ours = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    assert 1 <= len(ours) <= 4
    assert PARENT in [span.parent_span_id.hex() for span in ours]
    assert "canary" not in str(ours)


def test_no_collector_no_spans(start_service: StartService, collector: Collector) -> None:
    with start_service() as service:
        assert service.score("exact", ["1"], "1")[0]["reward"] == 1.0
    assert collector.spans == []
