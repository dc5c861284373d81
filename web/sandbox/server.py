"""The sandbox on a socket. Work that has begun is finished also when the shop hangs up, as gateways do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from quart import Response as QuartResponse
from quart import request as quart_request
from quart_trio import QuartTrio

from engine.errors import ConfigError
from web.logs import HypercornLogger
from web.messages import Request
from web.sandbox.handlers import Hook, Reply, Sandbox

BODY_BYTES_MAX = 64 * 1024
HOOK_S_MAX = 5.0
HOOK_TRIES = 3
_CUT = b"x-sandbox-cut"

_log = structlog.get_logger("onda.sandbox")

ASGI = Callable[[dict[str, Any], Callable[..., Any], Callable[..., Awaitable[None]]], Awaitable[None]]


async def finish(nursery: trio.Nursery, sandbox: Sandbox, request: Request) -> Reply:
    """Answer a request in a task that goes on when the one who asks is cancelled."""
    replies: list[Reply] = []
    done = trio.Event()

    async def work() -> None:
        replies.append(await sandbox.respond(request))
        done.set()

    nursery.start_soon(work)
    await done.wait()
    return replies[0]


def make_app(sandbox: Sandbox, nursery: trio.Nursery) -> QuartTrio:
    """Assemble the app of one sandbox."""
    app = QuartTrio("onda-sandbox", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX

    @app.route("/<path:path>", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
    async def answer(path: str) -> QuartResponse:
        body = await quart_request.get_data(cache=False, as_text=False, parse_form_data=False)
        headers = {name.lower(): value for name, value in quart_request.headers.items()}
        query = quart_request.query_string.decode("ascii", "replace")
        target = quart_request.scope["raw_path"].decode("ascii")
        reply = await finish(nursery, sandbox, Request(quart_request.method, target, query, headers, body))
        response = QuartResponse(reply.body, reply.status, dict(reply.headers))
        if reply.cut:
            response.headers[_CUT.decode()] = "1"
        return response

    app.asgi_app = _cutting(app.asgi_app)  # type: ignore[method-assign, assignment, arg-type]
    return app


def _cutting(app: ASGI) -> ASGI:
    """Break off answers that say so: a body is promised and never comes, so the connection is closed."""

    async def call(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        cut = False

        async def send_some(message: dict[str, Any]) -> None:
            nonlocal cut
            if message["type"] == "http.response.start":
                cut = any(name.lower() == _CUT for name, _ in message.get("headers", ()))
                if cut:
                    message = {**message, "headers": [(b"content-length", b"1000")]}
            elif cut:
                return
            await send(message)

        await app(scope, receive, send_some)

    return call


class Serving:
    """A sandbox that listens at `url`."""

    def __init__(self, sandbox: Sandbox, url: str) -> None:
        self.sandbox = sandbox
        self.url = url


@asynccontextmanager
async def open_sandbox(sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Serving]:
    """Serve a sandbox until the block ends; port 0 picks a free one.

    Raises:
        ConfigError: the address cannot be served.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigError(f"the sandbox cannot listen on {host}:{port}: {error}") from error
    for listener in listeners[1:]:
        listener.socket.close()
    number = listeners[0].socket.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{shown}]:{number}" if ":" in shown else f"http://{shown}:{number}"
    sandbox.url = sandbox.url or url
    async with httpx.AsyncClient(timeout=HOOK_S_MAX, trust_env=False) as http, trio.open_nursery() as nursery:
        sandbox.notify = lambda hook: nursery.start_soon(_tell, http, hook)
        handle = _connections(make_app(sandbox, nursery))
        await nursery.start(trio.serve_listeners, handle, listeners[:1])
        try:
            yield Serving(sandbox, url)
        finally:
            nursery.cancel_scope.cancel()


def _connections(app: QuartTrio) -> Callable[[trio.SocketStream], Awaitable[None]]:
    config = HypercornConfig()
    config.logger_class = HypercornLogger  # type: ignore[assignment]
    config.accesslog = None
    config.include_server_header = False
    context, wrapped = WorkerContext(None), wrap_app(app, 0, "asgi")

    async def handle(stream: Any) -> None:
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), stream).run()
        except* Exception as group:  # noqa: BLE001 - whatever it is, this connection alone must fail
            _log.warning("connection failed", error=repr(group.exceptions[0])[:200])

    return handle


async def _tell(http: httpx.AsyncClient, hook: Hook) -> None:
    """Send a hint, a few times: whoever misses it asks by themselves."""
    await trio.sleep(hook.delay_s)
    for number in range(HOOK_TRIES):
        try:
            headers = {"content-type": "application/json"}
            response = await http.post(hook.url, content=hook.body, headers=headers)
        except httpx.HTTPError as error:
            _log.info("hint not taken", error=type(error).__name__)
        else:
            if response.status_code < 500:
                return
        await trio.sleep(4**number)
