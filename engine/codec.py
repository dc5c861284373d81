"""Commands, events and envelopes to bytes and back; decoders are built once from the domains.

The envelope that is written to the log is, byte for byte, what clients get. Its fields and their order are
part of the contract on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Union

import msgspec

from engine.domain import DOMAINS
from engine.domain.contract import Command, Domain, Event, members
from engine.domain.nesting import DEPTH_MAX, is_too_deep
from engine.errors import ConfigError, Malformed

encode = msgspec.json.Encoder().encode


class Envelope(msgspec.Struct, gc=False):
    """One event as it goes to disk and to everybody who reads the stream."""

    id: str
    cursor: str
    stream: str
    version: int
    type: str
    time: str
    by: str
    cause: str
    data: Any
    patch: dict[str, dict[str, Any]]


class StoredEnvelope(msgspec.Struct, gc=False):
    """What the engine reads back from an envelope; the patch is not decoded."""

    id: str
    stream: str
    version: int
    type: str
    time: str
    by: str
    cause: str
    data: msgspec.Raw


class AnswerMeta(msgspec.Struct, array_like=True, gc=False):
    """What stands beside the last record of a command that came with an id, so that its answer can be given
    again.
    """

    id: str
    by: str
    digest: str
    count: int
    result: msgspec.Raw


def kebab(name: str) -> str:
    """Return a class name as it stands in a path: `CreateOrder` -> `create-order`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


_COMMANDS: dict[str, dict[str, type[Command]]] = {}
_COMMAND_TYPES: dict[str, frozenset[type[Command]]] = {}
_EVENTS: dict[str, dict[str, type[Event]]] = {}
_COMMAND_DECODERS: dict[str, dict[str, msgspec.json.Decoder[Any]]] = {}
_EVENT_DECODERS: dict[str, dict[str, Callable[[Any], Any]]] = {}
_STATE_DECODERS: dict[str, Callable[[bytes], Any]] = {}
_STORED_DECODERS: dict[str, Callable[[bytes], Any]] = {}
_PATCH = b',"patch":{'
_TIME = b'"time":"'


def add_kind(kind: str, domain: Domain) -> None:
    """Learn to read and write the commands, events and states of a kind of stream."""
    commands = {kebab(member.__name__): member for member in members(domain.Command)}
    events = {member.__name__: member for member in members(domain.Event)}
    _EVENT_DECODERS[kind] = {name: msgspec.json.Decoder(member).decode for name, member in events.items()}
    _STATE_DECODERS[kind] = msgspec.json.Decoder(domain.State).decode
    _STORED_DECODERS.pop(kind, None)
    _COMMAND_DECODERS[kind] = {name: msgspec.json.Decoder(member) for name, member in commands.items()}
    _COMMANDS[kind], _EVENTS[kind] = commands, events
    _COMMAND_TYPES[kind] = frozenset(commands.values())


_BUILT_IN = frozenset(DOMAINS)

for _kind, _domain in DOMAINS.items():
    add_kind(_kind, _domain)

decode_envelope = msgspec.json.Decoder(StoredEnvelope).decode
decode_meta = msgspec.json.Decoder(AnswerMeta).decode


def domain_of(kind: str) -> Domain:
    """Return the rules for one kind of stream.

    Raises:
        ConfigError: it is a plugin's, and the plugin is not loaded.
    """
    try:
        return DOMAINS[kind]
    except KeyError:
        raise ConfigError(
            f"there are streams of the kind {kind}: the plugin that brings it has to be loaded"
        ) from None


def commands(kind: str) -> dict[str, type[Command]]:
    """Return every command of a kind of stream by its name on the wire, those from inside too."""
    return _COMMANDS.get(kind, {})


def events(kind: str) -> dict[str, type[Event]]:
    """Return every event of a kind of stream by its type."""
    return _EVENTS.get(kind, {})


def command_types(kind: str) -> frozenset[type[Command]]:
    """Return the classes of every command of a kind of stream."""
    return _COMMAND_TYPES[kind]


def command_type(kind: str, name: str) -> type[Command] | None:
    """Return the class of a command by its name in kebab-case."""
    return _COMMANDS.get(kind, {}).get(name)


def decode_command(kind: str, name: str, body: bytes) -> Command:
    """Read a command from JSON; an empty body counts as `{}`.

    Raises:
        KeyError: no such command.
        Malformed: not JSON, or not this command's fields; the detail names the field.
    """
    try:
        decoded: Command = _COMMAND_DECODERS[kind][name].decode(body or b"{}")
        deep = body.count(b"[") + body.count(b"{") > DEPTH_MAX and is_too_deep(msgspec.json.decode(body))
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from None
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except RecursionError:
        deep = True
    if deep:
        raise Malformed("the body is nested too deeply")
    return decoded


def decode_event(kind: str, type_: str, data: msgspec.Raw | bytes) -> Event:
    """Read an event's data back.

    Raises:
        KeyError: no such event: the log was written by a newer version.
    """
    event: Event = _EVENT_DECODERS[kind][type_](data)
    return event


def decode_stored(kind: str, body: bytes) -> Event:
    """Read the event out of an envelope, in one pass and without looking at the patch.

    Raises:
        DecodeError: it is not one of ours, or a newer version wrote it.
    """
    decode = _STORED_DECODERS.get(kind) or _add_stored_decoder(kind)
    try:
        event: Event = decode(body[: body.rfind(_PATCH)] + b"}").data
    except msgspec.DecodeError:  # it was cut within the patch, by an entity with a field of this name
        event = decode(body).data
    return event


def _add_stored_decoder(kind: str) -> Callable[[bytes], Any]:
    """Make the decoder of envelopes that finds the class of `data` by `type`."""
    envelopes = tuple(
        msgspec.defstruct(name, [("data", member)], tag_field="type", tag=name, gc=False)
        for name, member in _EVENTS[kind].items()
    )
    decode = _STORED_DECODERS[kind] = msgspec.json.Decoder(Union[envelopes]).decode  # noqa: UP007
    return decode


def stored_time(body: bytes) -> str:
    """Return the time of an envelope. Nothing that stands before it can look like it."""
    start = body.index(_TIME) + len(_TIME)
    return body[start : body.index(b'"', start)].decode()


def check_events(kind: str, events: Sequence[Event]) -> None:
    """Make sure that events can be read back once they are written: a log that cannot is a server that does
    not start. Those of plugins are tried out; for those built in tests do.

    Raises:
        TypeError: an event that its kind of stream does not have.
        msgspec.ValidationError: a field that is not what its type says.
    """
    known = _EVENTS[kind]
    for event in events:
        name = type(event).__name__
        if known.get(name) is not type(event):
            raise TypeError(f"{name} is not among the events of a {kind}")
        if kind not in _BUILT_IN:
            read = decode_event(kind, name, encode(event))
            DOMAINS[kind].fences(read)  # asked of each event at a start, too


def encode_state(kind: str, state: Any) -> bytes:
    """Return a domain's state as a checkpoint holds it, sure to be read back; as `check_events`.

    Raises:
        msgspec.ValidationError: a field that is not what its type says.
    """
    data = encode(state)
    if kind not in _BUILT_IN:
        decode_state(kind, data)
    return data


def decode_state(kind: str, data: bytes) -> Any:
    """Read a domain's state as a checkpoint holds it."""
    return _STATE_DECODERS[kind](data)
