"""Plugins: kinds of stream, reactions and routes out of other modules, which the setting `plugins` names.

A plugin is a module with a `plugin = Plugin(…)`. What it brings follows the same rules as what is built in:
commands and events are structs, names of events are for ever, a reaction may see a record again. A kind of
stream belongs to the whole process; it cannot be replaced, nor can one that is built in.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import codec
from engine.config import Config
from engine.domain import DOMAINS
from engine.domain.contract import Command, Domain, Event, members
from engine.errors import ConfigError
from engine.reactions import Reaction
from engine.records import KINDS

if TYPE_CHECKING:
    from engine.node import Node

KIND = re.compile(r"[a-z][a-z0-9]{0,31}\Z")
_FUNCTIONS = ("decide", "evolve", "touched", "answer", "deadline", "fences")
_BUILT_IN = frozenset(DOMAINS)


class Plugin(NamedTuple):
    """What a module adds.

    Args:
        domains: kind of stream -> module with its rules (see `engine.domain`); its streams have one id:
            `ledger:main`.
        reactions: given the node, returns what follows from records. Their names must be the plugin's own.
        routes: given the site, returns `web.plugged.Route`s.
    """

    domains: Mapping[str, Any] = {}
    reactions: Callable[[Node], Sequence[Reaction]] | None = None
    routes: Callable[[Any], Sequence[Any]] | None = None


def load_plugins(config: Config) -> list[Plugin]:
    """Import the plugins of the settings and make their kinds of stream known; loading one again is nothing.

    Raises:
        ConfigError: a module cannot be imported, or is not a plugin that works; the text says which and why.
    """
    plugins = []
    for name in plugin_names(config):
        plugin = _import(name)
        for kind, domain in plugin.domains.items():
            _add_kind(name, kind, domain)
        plugins.append(plugin)
    return plugins


def plugin_names(config: Config) -> list[str]:
    """Return the modules that the settings name, each once."""
    return list(dict.fromkeys(name for name in re.split(r"[,\s]+", config.plugins) if name))


def is_plugged(kind: str) -> bool:
    """Return whether a kind of stream came from a plugin."""
    return kind in DOMAINS and kind not in _BUILT_IN


def plugin_reactions(plugins: Sequence[Plugin], node: Node, taken: Collection[str]) -> list[Reaction]:
    """Return what the plugins let follow from records. Names that are `taken` are Onda's own: two reactions
    of one name would share their place in the log, and their parked records.

    Raises:
        ConfigError: something else than reactions, a name that there is already, or a fault in a plugin.
    """
    found = [
        reaction
        for plugin in plugins
        if plugin.reactions is not None
        for reaction in _brought("reactions", plugin.reactions, node)
    ]
    for reaction in found:
        if not isinstance(reaction, Reaction):
            raise ConfigError(f"plugins: reactions must be engine.Reaction, not {type(reaction).__name__}")
    names = [reaction.name for reaction in found]
    for name in names:
        if name in taken:
            raise ConfigError(f"plugins: a reaction of Onda's own is called {name}")
        if names.count(name) > 1:
            raise ConfigError(f"plugins: two reactions are called {name}")
    return found


def plugin_routes(plugins: Sequence[Plugin], site: Any) -> list[Any]:
    """Return the routes of the plugins.

    Raises:
        ConfigError: a fault in a plugin.
    """
    return [
        route
        for plugin in plugins
        if plugin.routes is not None
        for route in _brought("routes", plugin.routes, site)
    ]


def _brought(what: str, bring: Callable[[Any], Sequence[Any]], host: Any) -> Sequence[Any]:
    try:
        return list(bring(host))
    except Exception as error:
        name = getattr(bring, "__module__", "?")
        raise ConfigError(f"plugin {name}: its {what}: {type(error).__name__}: {error}") from error


def _import(name: str) -> Plugin:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise ConfigError(f"plugin {name}: {type(error).__name__}: {error}") from error
    plugin = getattr(module, "plugin", None)
    if not isinstance(plugin, Plugin):
        raise ConfigError(f"plugin {name}: the module has no `plugin = Plugin(…)`")
    return plugin


def _add_kind(name: str, kind: str, domain: Any) -> None:
    if not KIND.match(kind):
        raise ConfigError(f"plugin {name}: the kind {kind!r} must be 1-32 of a-z, 0-9, a letter first")
    if DOMAINS.get(kind) is domain:
        return
    if kind in DOMAINS:
        raise ConfigError(f"plugin {name}: there is a kind of stream {kind} already")
    _check_domain(name, kind, domain)
    try:
        codec.add_kind(kind, domain)
    except TypeError as error:
        raise ConfigError(f"plugin {name}: {kind}: {error}") from error
    KINDS[kind] = 1
    DOMAINS[kind] = domain


def _check_domain(name: str, kind: str, domain: Domain) -> None:
    missing = [part for part in ("Command", "Event", "State", "COLLECTIONS") if not hasattr(domain, part)]
    missing += [part for part in _FUNCTIONS if not callable(getattr(domain, part, None))]
    if missing:
        raise ConfigError(f"plugin {name}: the rules of {kind} lack {', '.join(missing)}")
    for part in _FUNCTIONS:
        if inspect.iscoroutinefunction(getattr(domain, part)):
            raise ConfigError(f"plugin {name}: {part} of {kind} must not be async: rules do no I/O")
    for union, parent in ((domain.Command, Command), (domain.Event, Event)):
        for member in members(union):
            if not (isinstance(member, type) and issubclass(member, parent)):
                raise ConfigError(f"plugin {name}: {member!r} of {kind} must be a {parent.__name__}")
    for collection in domain.COLLECTIONS:
        if not hasattr(domain.State(), collection):
            raise ConfigError(f"plugin {name}: the state of {kind} has no {collection}")
