"""A shop from its write-ahead log into a Redis that nodes share, and back.

Theory of operation. Entries move as they are, byte by byte: the cursor in each envelope is
`<epoch>-<version>`, so the log that is made has the epoch of the one that is left, and clients go on from the
cursors they have. What changes are positions (`places.py`), and with them what the checkpoint says in them.

The source is read first, to know all of it before anything is written; the target is read back and compared.
Only then the source is closed (`log/MOVED` in a folder, `moved` in `:meta`), and only after that the target
is opened: at no moment there are two shops. Killed at any point, what is there is the whole source and a
target that nobody opens; `again` begins anew.

Blocking, for the command line: no trio here.
"""

from engine.migrating.folder import Sizes
from engine.migrating.into_redis import to_redis, undo_to_redis
from engine.migrating.out_of_redis import from_redis, undo_from_redis
from engine.migrating.tally import Report
from engine.migrating.tokens import bring_revoked

__all__ = ["Report", "Sizes", "bring_revoked", "from_redis", "to_redis", "undo_from_redis", "undo_to_redis"]
