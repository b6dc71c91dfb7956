"""A package index on 127.0.0.1 with one wheel, as pip asks for it, and its faults."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Index:
    """An index that holds `wheel`; the first `breaks` downloads of it are cut off in the middle."""

    def __init__(self, wheel: Path, breaks: int = 0) -> None:
        self.wheel, self.breaks, self.downloads = wheel, breaks, 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """The address, for PIP_INDEX_URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/simple"

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[bytes, bytes]:
        """Return the whole answer to a request, and what is sent of it."""
        if not path.endswith(".whl"):
            page = f'<a href="/{self.wheel.name}">{self.wheel.name}</a>'.encode()
            return page, page
        self.downloads += 1
        whole = self.wheel.read_bytes()
        return whole, whole[: len(whole) // 2] if self.downloads <= self.breaks else whole


def _handler(index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            whole, sent = index.answer(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
