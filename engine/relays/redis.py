"""The one door to redis-py: two connections, one that publishes and one that listens, each in its own thread.

redis-py blocks, so nothing of it runs in the loop. Its own retries are off: who calls decides. A connection
that went silent (a cable that was pulled sends no goodbye) is found by pings of our own. Who is cancelled
leaves its thread behind, which ends with its next answer or time-out: the end of the server waits for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import redis
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_S = 5.0
"""For connecting, and for each answer."""
PING_S = 5.0
"""How often the listening connection is asked whether it is there."""
POLL_S = 0.25
"""How long the listening thread waits at a time, and so how long it takes to end."""


class Away(Exception):
    """Redis does not answer, or refuses; try again later. The text says why, without the password."""


class Door:
    """A Redis at a URL.

    Raises:
        ValueError: the URL makes no sense.
    """

    def __init__(self, url: str) -> None:
        self._publisher = _client(url)
        self._listener = _client(url)
        self._one = trio.CapacityLimiter(1)  # publishes in order, on one connection
        self._other = trio.CapacityLimiter(1)
        self.listening_since: float | None = None  # by trio's clock; `None`: not now

    async def publish(self, channel: str, message: bytes) -> int:
        """Publish a message; return how many take it.

        Raises:
            Away: it may or may not have been published.
        """

        def work() -> int:
            try:
                return int(self._publisher.publish(channel, message))
            except (redis.RedisError, OSError) as error:
                raise Away(f"{type(error).__name__}: {error}") from None

        return await trio.to_thread.run_sync(work, limiter=self._one, abandon_on_cancel=True)

    async def listen(self, channel: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Subscribe and call `take` with each message, one after the other, until the connection is lost.

        Raises:
            Away: always, unless cancelled.
        """
        try:
            await trio.to_thread.run_sync(
                self._listen, channel, take, limiter=self._other, abandon_on_cancel=True
            )
        finally:
            self.listening_since = None

    def _listen(self, channel: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Run in the thread. `check_cancelled` and calls into the loop raise `Cancelled` here, too."""
        subscriber = self._listener.pubsub()  # type: ignore[no-untyped-call]
        try:
            subscriber.subscribe(channel)
            heard_s = asked_s = time.monotonic()
            while True:
                trio.from_thread.check_cancelled()
                message = subscriber.get_message(timeout=POLL_S)
                now_s = time.monotonic()
                if message is not None:
                    heard_s = now_s
                    if message["type"] == "subscribe":
                        trio.from_thread.run_sync(self._note_listening)
                    elif message["type"] == "message":
                        trio.from_thread.run(take, message["data"])
                        heard_s = asked_s = time.monotonic()  # taking it may have had to wait
                elif heard_s < asked_s and now_s - asked_s > TIMEOUT_S:
                    raise Away(f"nothing heard for {now_s - heard_s:.0f} s")
                if heard_s >= asked_s and now_s - asked_s > PING_S:
                    subscriber.ping()
                    asked_s = time.monotonic()
        except (redis.RedisError, OSError) as error:
            raise Away(f"{type(error).__name__}: {error}") from None
        finally:
            subscriber.close()
            self._listener.connection_pool.disconnect()

    def _note_listening(self) -> None:
        self.listening_since = trio.current_time()

    def close(self) -> None:
        """Close both connections."""
        self._publisher.close()
        self._listener.close()


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        max_connections=1,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        socket_keepalive=True,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=False,
    )
