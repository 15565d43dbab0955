"""Fixtures of the dataset tests: a small web server, and the real data beside the project."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data beside the project (../shared/data) are not here")
    return SHARED


class Server:
    """Answers each path with its list of answers in turn, the last one for ever; counts the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                answers = server.answers.get(self.path.split("?")[0], [status(404)])
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @staticmethod
    def status(code: int) -> Answer:
        """An answer without content."""
        return status(code)

    @staticmethod
    def body(content: bytes, promised: int | None = None) -> Answer:
        """An answer with the content; with more bytes `promised` than there are, it is a transfer that is cut."""
        return body(content, promised)

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def status(code: int) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def body(content: bytes, promised: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    """Retry as in earnest, but without the pauses."""
    with stamina.set_testing(True, attempts=4):
        yield
