"""The edge's framing against h11, guided by coverage; run by hand, see docs/testing.md.

    .venv/bin/pip install atheris
    .venv/bin/python -m tests.fuzz_framing -max_total_time=300

The first three bytes of an input say where the rest is cut. Options are libFuzzer's; a folder
among them is a corpus.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["h11", "web.framing", "web.heads"]):
    from tests.web.verdicts import check

WORDS = [
    b"GET / HTTP/1.1\r\n",
    b"Host: x\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : ",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: x\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"HTTP/1.0",
    b"chunked",
    b"http://h/",
]
_HOST = b" HTTP/1.1\r\nHost: x\r\n"
SEEDS = [
    b"\x00\x05\x09GET /x?y" + _HOST + b"\r\nPOST /" + _HOST + b"Content-Length: 2\r\n\r\nab",
    b"\x02\x11\x30POST /" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"\x01\x40\x41POST /"
    + _HOST
    + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
    b"\x01\x40\x41GET http://h/x" + _HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\nrest",
    b"\x01\x40\x41GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]

_counts: Counter[str] = Counter()


def try_one(data: bytes) -> None:
    """Raise when the framing and h11 differ, or cutting changes something."""
    verdict = check(data[3:], list(data[:3]))
    _counts["executions"] += 1
    _counts["requests accepted"] += len(verdict.messages)
    _counts[verdict.end] += 1
    if _counts["executions"] % 100_000 == 0:
        print(dict(_counts), flush=True)


def main() -> None:
    """Fuzz from the seeds, with the words of HTTP at hand."""
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "words")
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS))
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(SEEDS):
            Path(corpus, str(number)).write_bytes(seed)
        options = [sys.argv[0], f"-dict={words}", "-max_len=600", *sys.argv[1:], str(corpus)]
        atheris.Setup(options, try_one)
        atheris.Fuzz()


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
