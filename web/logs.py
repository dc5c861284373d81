"""Logging: structlog to stderr, one line per event, key=value or JSON; tokens never get through."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:  # commands that serve nothing need not wait for Hypercorn
    from hypercorn.config import Config as HypercornConfig
    from hypercorn.typing import ResponseSummary, WWWScope

_TOKEN = re.compile(r"(token=|bearer\s+)[^\s&\"';,]+", re.IGNORECASE)
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+")
_SECRET_KEYS = frozenset({"token", "authorization", "cookie", "secret"})
_HIDDEN = "[hidden]"

_access = structlog.get_logger("onda.access")


def configure_logs(*, as_json: bool) -> None:
    """Send every log line of this process, ours and libraries', to stderr in one form."""
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], bool_as_flag=False
        )
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_tokens,
    ]
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "quart.app", "quart.serving"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def hide_tokens(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take whatever may be a token out of a log line (a structlog processor)."""
    for key, value in event.items():
        if key.lower() in _SECRET_KEYS:
            event[key] = _HIDDEN
        elif isinstance(value, str):
            event[key] = hide(value)
    return event


def hide(text: str) -> str:
    """Return the text without tokens."""
    return _JWT.sub(_HIDDEN, _TOKEN.sub(rf"\1{_HIDDEN}", text))


class HypercornLogger:
    """What Hypercorn logs, as our lines; of answers only when the access log was asked for."""

    def __init__(self, config: HypercornConfig) -> None:
        self._wants_access = config.accesslog is not None
        self._log = structlog.get_logger("onda.http")

    async def access(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        if self._wants_access:
            query = request["query_string"].decode("latin-1")
            _access.info(
                "answered",
                method=request.get("method", "WEBSOCKET"),
                path=request["path"],
                query=query,
                status=response["status"] if response else 0,
                ms=round(request_time * 1000, 1),
                peer=(request.get("client") or ("",))[0],
            )

    async def critical(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._log.critical(message % args if args else message)

    async def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._log.error(message % args if args else message)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._log.warning(message % args if args else message)

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._log.info(message % args if args else message)

    async def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._log.debug(message % args if args else message)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        self._log.error(message % args if args else message, exc_info=True)
