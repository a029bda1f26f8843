"""A folder served as a bucket of S3, read-only, as slow as asked: what a cold start costs over a network.

    python -m benchmarks.ranged_s3 FOLDER [--latency-ms 20] [--mb-per-s 80]

Knows ``GET`` and ``HEAD`` of an object, with one range, and ``ListObjectsV2``. Every answer begins after the
latency; a connection brings no more than so many megabytes a second, as one of S3 does. Prints its address.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"
_PIECE_BYTES = 256 << 10
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Served(ThreadingHTTPServer):
    """The server of one folder."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, latency_s: float, bytes_per_s: float) -> None:
        self.folder = folder
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        super().__init__(("127.0.0.1", 0), _Answering)


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Served

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        time.sleep(self.server.latency_s)
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix(f"/{BUCKET}").lstrip("/")
        path = self.server.folder / key
        if not key:
            self._send_head(200, content := _listed(self.server.folder, parse_qs(url.query)))
            self.wfile.write(content)
        elif path.is_file():
            self._send_object(path)
        else:
            self._send_head(404, content := b"<Error><Code>NoSuchKey</Code></Error>")
            self.wfile.write(content)

    def _send_head(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def _send_object(self, path: Path) -> None:
        size = path.stat().st_size
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(size, int(asked[2]) + 1) if asked and asked[2] else size
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{size}"')
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        if self.command == "GET":
            self._send_bytes(path, start, stop)

    def _send_bytes(self, path: Path, start: int, stop: int) -> None:
        began = time.perf_counter()
        with open(path, "rb") as file:
            for at in range(start, stop, _PIECE_BYTES):
                n_bytes = min(_PIECE_BYTES, stop - at)
                self.connection.sendfile(file, at, n_bytes)
                ahead_s = (at + n_bytes - start) / self.server.bytes_per_s - (time.perf_counter() - began)
                if ahead_s > 0:
                    time.sleep(ahead_s)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the measurement is printed elsewhere."""


def _listed(folder: Path, query: dict[str, list[str]]) -> bytes:
    prefix, after = (query.get(name, [""])[0] for name in ("prefix", "start-after"))
    keys = [key for key in _keys(folder) if key.startswith(prefix) and key > after]
    found, folders = [], set()
    for key in keys:
        rest = key[len(prefix) :]
        if query.get("delimiter") and "/" in rest:
            folders.add(prefix + rest.partition("/")[0] + "/")
        else:
            found.append(key)
    objects = "".join(_listed_object(folder, key) for key in found)
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
    )
    told = f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult><Name>{BUCKET}</Name>{told}{objects}{prefixes}</ListBucketResult>".encode()


def _listed_object(folder: Path, key: str) -> str:
    stat = (folder / key).stat()
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stat.st_mtime))
    facts = f"<Size>{stat.st_size}</Size><LastModified>{at}</LastModified><ETag>{stat.st_size}</ETag>"
    return f"<Contents><Key>{escape(key)}</Key>{facts}</Contents>"


def _keys(folder: Path) -> Iterator[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    yield from sorted(path.relative_to(folder).as_posix() for path in paths)


def main() -> None:
    """Serve until it is killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--mb-per-s", type=float, default=80.0, help="of one connection")
    asked = parser.parse_args()
    server = Served(asked.folder, asked.latency_ms / 1e3, asked.mb_per_s * 1e6)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
