"""A server of a file or folder, by ranges, for tests: a process of its own, since GDAL holds Python's lock meanwhile.

    python serve_file.py FILE MODE FAILURES

Prints its port, and at the end of its input how many bytes it has sent. MODE is "well", a status such as "403", "half"
(each answer is cut off in its middle), "without ranges", "silent", "signed", where TIFFs need the query sig=SECRET, or
"late 403", which is the answer to what begins behind the first 64 KiB; FAILURES is how often it answers 503 before.
"""

import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILE, MODE = Path(sys.argv[1]), sys.argv[2]
STATE = {"failures": int(sys.argv[3]), "sent": 0}


class Handler(BaseHTTPRequestHandler):
    """Serves the file under every name that ends as a TIFF, or the files below the folder, after a first "bucket"."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Answer with headers only."""
        self._answer()

    def do_GET(self) -> None:
        """Answer."""
        with suppress(OSError):  # the client has had enough
            self._answer()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        file = FILE / path.removeprefix("/bucket/") if FILE.is_dir() else FILE
        content = file.read_bytes() if file.is_file() and (FILE.is_dir() or path.endswith(".tif")) else b""
        first, last, status = 0, len(content) - 1, 200
        unsigned = MODE == "signed" and path.endswith(".tif") and query != "sig=SECRET"
        if MODE.isdecimal() or STATE["failures"] or not content or unsigned:
            status = int(MODE) if MODE.isdecimal() else 503 if STATE["failures"] else 403 if unsigned else 404
            STATE["failures"] = max(0, STATE["failures"] - 1)
            self._send(status, b"")
            return
        if MODE == "silent":
            threading.Event().wait(60)
            return
        ranged = self.headers.get("Range", "")
        if ranged and MODE != "without ranges":
            start, end = ranged.removeprefix("bytes=").split("-")
            first, last, status = int(start), min(int(end or last), last), 206
        if MODE == "late 403" and first >= 1 << 16:
            self._send(403, b"")
            return
        self._send(status, content[first : last + 1], f"bytes {first}-{last}/{len(content)}" if status == 206 else "")

    def _send(self, status: int, part: bytes, ranged: str = "") -> None:
        self.send_response(status)
        self.send_header("Accept-Ranges", "none" if MODE == "without ranges" else "bytes")
        self.send_header("Content-Length", str(len(part)))
        if ranged:
            self.send_header("Content-Range", ranged)
        self.end_headers()
        if self.command == "GET":
            cut = len(part) // 2 if MODE == "half" else len(part)
            self.wfile.write(part[:cut])
            STATE["sent"] += cut
            self.close_connection = self.close_connection or cut < len(part)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    sys.stdout.write(f"{STATE['sent']}\n")
