"""The history: every event, and what became of orders, payments and stock, in SQL, for asking afterwards.

Nothing in the engine depends on it: it follows the log as any reader does, and may be late. `keeper` writes
it, `reading` and `report` ask it, `rebuild` makes it again out of the log. The tables are in `tables`.
"""

from engine.history.database import Database, database_url
from engine.history.keeper import Host, Keeper

__all__ = ["Keeper", "open_keeper"]


def open_keeper(host: Host) -> Keeper:
    """Return the keeper of the history that the settings name; nothing connects yet.

    Raises:
        ConfigError: the settings name none that there could be.
    """
    url = database_url(host.config.db, host.config.data)
    assert url is not None
    return Keeper(host, Database(url))
