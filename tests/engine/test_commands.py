"""The commands that programs send are in one place."""

from __future__ import annotations

from engine import codec, commands


def test_every_command_from_outside_is_public() -> None:
    """What some role may send can be imported from `engine.commands`; what only the engine sends cannot."""
    for kind in ("store", "table", "user"):
        for command in codec.commands(kind).values():
            public = command.__name__ in commands.__all__
            assert public == bool(command.allowed), command
            assert not public or getattr(commands, command.__name__) is command


def test_what_is_listed_is_there() -> None:
    """`__all__` names exist, in order."""
    assert sorted(commands.__all__) == list(commands.__all__)
    for name in commands.__all__:
        assert hasattr(commands, name)
