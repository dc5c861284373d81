"""An example of a plugin: accounts, whose snapshots are made behind the scenes and told to the user.

    onda serve --open --plugin examples.accounts

    POST /accounts          201 {id, name, balance, createdAt}, at once
    GET  /accounts          all of them
    GET  /snapshots         {account, date, userId}, one for each account each time

`ledger.py` are the rules, `flow.py` what follows from events, `routes.py` the paths.
"""

from __future__ import annotations

from engine import Plugin
from examples.accounts import ledger
from examples.accounts.flow import reactions
from examples.accounts.routes import routes

plugin = Plugin(domains={"ledger": ledger}, reactions=reactions, routes=routes)
