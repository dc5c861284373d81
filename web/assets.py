"""`/static/…`: the files beside the pages, with tags by which a browser asks whether its copy is good."""

from __future__ import annotations

import mimetypes
from hashlib import sha256
from pathlib import Path

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import NotFound

FOLDER = Path(__file__).with_name("static")
FILE_BYTES_MAX = 4 << 20

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}


class Assets:
    """Files of one folder, read once and again when they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: dict[Path, tuple[int, bytes, str]] = {}

    def load(self, name: str) -> tuple[bytes, str]:
        """Return a file's bytes and tag.

        Raises:
            FileNotFoundError: no such file in the folder, or one that is too large to be an asset.
        """
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise FileNotFoundError(name)
        status = path.stat()
        known = self._known.get(path)
        if known is None or known[0] != status.st_mtime_ns:
            if status.st_size > FILE_BYTES_MAX:
                raise FileNotFoundError(name)
            content = path.read_bytes()
            known = self._known[path] = (status.st_mtime_ns, content, sha256(content).hexdigest()[:16])
        return known[1], known[2]


def add_assets(app: QuartTrio, folder: Path = FOLDER) -> None:
    """Serve the folder's files under `/static/`."""
    assets = Assets(folder)

    @app.get("/static/<path:name>")
    async def static(name: str) -> Response:
        try:
            content, tag = await trio.to_thread.run_sync(assets.load, name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise NotFound("there is no such file") from None
        headers = {"etag": f'"{tag}"', "cache-control": "no-cache"}
        if f'"{tag}"' in request.headers.get("if-none-match", ""):
            given = Response(b"", 304, headers)
            given.headers.pop("content-length", None)
            return given
        suffix = Path(name).suffix
        type_ = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, 200, headers, content_type=type_)
