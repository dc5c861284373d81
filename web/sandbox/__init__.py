"""A payment gateway of our own that moves no money: for demos, for trying out, and to test against.

`ledger` is its truth: every charge and every cancel, once per idempotency key. `handlers` answers requests
without knowing of any server; `pages` is the page where a guest "pays"; `server` puts both on a socket, in a
process of its own (`onda sandbox-pg`) or beside the shop (`onda serve`).
"""
