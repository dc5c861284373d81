"""Payment gateways: what the shop asks of them, and what it makes of their answers.

`contract` says what a gateway is and what its answers mean; `http` carries requests and tells what was
certainly not sent from what may have been; `sandbox`, `naverpay`, `toss` and `kakaopay` speak to one gateway
each; `gateways` makes those that the settings name; `calls` is the reaction that joins them to the log.
"""

from engine.payments.contract import Approved, Declined, Gateway, Links, Result, Unknown
from engine.payments.gateways import Gateways, open_gateways

__all__ = ["Approved", "Declined", "Gateway", "Gateways", "Links", "Result", "Unknown", "open_gateways"]
