"""A real HTTP S3 server for tests, and a proxy that puts faults between it and its clients."""

import contextlib
import http.client
import http.server
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """moto's S3 server with a bucket `bucket`, on the port that is yielded."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", "/bucket", headers={"Host": "127.0.0.1"})
        assert connection.getresponse().status == 200
        connection.close()
        yield port
    finally:
        server.stop()


@contextlib.contextmanager
def serving_gs() -> Iterator[int]:
    """A server that speaks Google Cloud Storage's API, with a bucket `bucket`, on the port that is yielded."""
    from gcp_storage_emulator import server as emulator

    for name in ("gcp_storage_emulator", "gcp_storage_emulator.server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator.server, "HTTPServer", http.server.ThreadingHTTPServer)  # clients keep connections open
        server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
        server.start()
    try:
        yield server._api._httpd.server_port
    finally:
        server.stop()


class Faults:
    """What goes wrong between client and server: shares of requests, drawn from a seed; `down` refuses them all."""

    def __init__(
        self, seed: int, errors: float = 0.0, drops: float = 0.0, late: float = 0.0, slow: float = 0.0
    ) -> None:
        self.random = random.Random(seed)
        self.shares = {"error": errors, "drop": drops, "late": late, "slow": slow}
        self.down = False
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()

    def next(self) -> str:
        """What happens to the next request: `late` ones are answered and the answer is lost."""
        with self.lock:
            if self.down:
                kind = "error"
            else:
                [kind] = self.random.choices(
                    [*self.shares, "none"], [*self.shares.values(), max(0.0, 1 - sum(self.shares.values()))]
                )
            self.seen[kind] += 1
            return kind


@contextlib.contextmanager
def proxy(port: int, faults: Faults) -> Iterator[tuple[str, list[str]]]:
    """An address that leads to the server at `port` through faults, and the growing list of requests."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def forward(self) -> None:
            requests.append(f"{self.command} {self.path}")
            body = self.body()
            kind = faults.next()
            if kind == "slow":
                time.sleep(0.3)
            if kind == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if kind == "error":
                self.answer(500, [], b"")
                return
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as upstream:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
                upstream.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
                found = upstream.getresponse()
                content = found.read()
            if kind == "late":
                self.close_connection = True
                self.connection.close()
                return
            self.answer(found.status, found.getheaders(), content)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            length = dict((name.lower(), value) for name, value in headers).get("content-length", "0")
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # clients that give up

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()
        thread.join()


@contextlib.contextmanager
def environment(endpoint: str) -> Iterator[dict[str, str]]:
    """The variables with which clients find the server, S3 or Google Cloud Storage."""
    wanted = CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint, "STORAGE_EMULATOR_HOST": endpoint}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield wanted
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
