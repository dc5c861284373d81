"""How long from publishing an event to a subscriber in another process? 500 events a second, over HTTP.

Open loop: events are sent at their time, on several connections, whether or not earlier ones were answered.
Each carries the monotonic clock, taken just before its request is written; a member of a group, in a process
of its own, compares it when the record is in its hands. Both commits are in it: that of the event, and that
of its delivery, each with fdatasync. `answer` is until the reply to the publisher. The server has a core to
itself.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from benchmarks.harness import (
    LOAD_CPU,
    ROOT,
    Row,
    folder,
    median_row,
    parser,
    pin,
    repeated,
    report,
    served,
    spread,
    token,
)

TOPIC = "customer-bench"
GROUP = f"/v1/topics/{TOPIC}/groups/readers"
KEYS = 1000
GRACE_S = 5.0


def main() -> None:
    """Measure and report."""
    options = parser("publish", __doc__.partition("\n")[0])
    options.add_argument("--rate", type=float, default=500.0, help="events a second")
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--warm-up", type=float, default=2.0)
    options.add_argument("--connections", type=int, default=16)
    given = options.parse_args()
    given.runs = 1 if given.quick else given.runs
    pin(LOAD_CPU)

    def once() -> Row:
        with folder(given.folder) as data:
            return measure(data, given.rate, given.seconds, given.warm_up, given.connections)

    rows = [median_row(repeated(given.runs, once))]
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "seconds": given.seconds})
    if any(row["lost"] for row in rows):
        raise SystemExit("an event is lost: this run has failed")


def measure(data: Path, rate: float, seconds: float, warm_up: float, connections: int) -> Row:
    """One run against a fresh server."""
    with served(data, "--no-demo") as (port, _):
        warm, count = int(rate * warm_up), int(rate * seconds)
        code = f"from benchmarks.publish import subscribe; subscribe({port}, {warm}, {warm + count})"
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()  # it has joined
            answers = publish(port, rate, warm + count, connections)
            told = json.loads(reader.stdout.readline())
        return {
            "events/s": rate,
            **spread("subscriber ms", told["latencies_ms"]),
            **spread("answer ms", answers[warm:]),
            "doubles": told["doubles"],
            "lost": warm + count - told["seen"],
        }


def publish(port: int, rate: float, count: int, connections: int) -> list[float]:
    """Send events at their time; return how long each answer took, in ms."""
    due: SimpleQueue[int | None] = SimpleQueue()
    answers: list[float] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
        while (number := due.get()) is not None:
            began = time.monotonic_ns()
            data = {"number": number, "sent_ns": began, "location": "Table 3", "confidence": 0.95}
            body = {"event_id": f"e{number}", "key": f"k{number % KEYS}", "data": data}
            connection.request("POST", f"/v1/topics/{TOPIC}", json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            answers.append((time.monotonic_ns() - began) / 1e6)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        due.put(number)
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return answers


def subscribe(port: int, warm: int, count: int) -> None:
    """Be the group: print a line when joined, and one with figures when all events came (or no more)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    call(connection, "join", {"member": "bench"})
    print("joined", flush=True)
    latencies_ms: list[float] = []
    seen: set[int] = set()
    doubles = 0
    words: SimpleQueue[list[str] | None] = SimpleQueue()
    speaker = threading.Thread(target=speak, args=(port, words))
    speaker.start()
    last_s = time.monotonic()
    while len(seen) < count and time.monotonic() - last_s < GRACE_S:
        records = call(connection, "pull", {"member": "bench", "limit": 200, "wait_s": 1})["records"]
        now_ns = time.monotonic_ns()
        for record in records:
            last_s = time.monotonic()
            number = record["data"]["number"]
            doubles += number in seen
            seen.add(number)
            if number >= warm:
                latencies_ms.append((now_ns - record["data"]["sent_ns"]) / 1e6)
        if records:
            words.put([record["lease"] for record in records])
    words.put(None)
    speaker.join()
    print(json.dumps({"latencies_ms": latencies_ms, "seen": len(seen), "doubles": doubles}), flush=True)


def speak(port: int, words: SimpleQueue[list[str] | None]) -> None:
    """Acknowledge beside the pulls."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while (leases := words.get()) is not None:
        call(connection, "ack", {"member": "bench", "leases": leases})


def call(connection: http.client.HTTPConnection, verb: str, body: Row) -> Row:
    """Ask the group."""
    headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
    connection.request("POST", f"{GROUP}/{verb}", json.dumps(body), headers)
    answer = connection.getresponse()
    told: Row = json.loads(answer.read())
    assert answer.status == 200, told
    return told


if __name__ == "__main__":
    main()
