"""The history: every event, and what became of orders, payments and stock, in SQL, for asking afterwards.

Nothing in the engine depends on it: it follows the log as any reader does, and may be late. `keeper` writes
it, `reading` and `report` ask it, `rebuild` makes it again out of the log. The tables are in `tables`.
"""

from engine.history.database import Database, database_url
from engine.history.keeper import Keeper
from engine.history.shared import SharedHistory
from engine.node import Node
from engine.shared_partition import SharedPartition

__all__ = ["History", "Keeper", "SharedHistory", "open_history"]

History = Keeper | SharedHistory
"""What a node has of its history: of its own log, or of a shared one."""


def open_history(node: Node) -> History:
    """Return the history that the settings name; nothing connects yet.

    Raises:
        ConfigError: the settings name none that there could be.
    """
    url = database_url(node.config.db, node.config.data)
    assert url is not None
    if any(isinstance(partition, SharedPartition) for partition in node.partitions):
        return SharedHistory(node, Database(url, shared=True))
    return Keeper(node, Database(url))
