"""One data folder belongs to one server at a time."""

from pathlib import Path

import pytest

from tests.chaos.process import DidNotStart, open_server


@pytest.mark.one_node("the lock of a data folder")
async def test_a_second_server_is_refused_and_the_first_goes_on(tmp_path: Path):
    """The second one says why, in one line, and exits with an error; the folder stays the first one's."""
    data = tmp_path / "data"
    async with open_server(data) as (first, _):
        async with open_server(data, start=False) as (second, nursery):
            with pytest.raises(DidNotStart, match="held by another process"):
                await second.start(nursery)
            assert await second.wait_ended() > 0
            assert not any("Traceback" in line for line in second.said)
        assert await first.stop() == 0


@pytest.mark.one_node("the lock of a data folder")
async def test_a_killed_server_leaves_no_lock(tmp_path: Path):
    """After SIGKILL the next start finds the folder free."""
    async with open_server(tmp_path / "data") as (server, nursery):
        await server.kill()
        await server.start(nursery)
        assert await server.stop() == 0
