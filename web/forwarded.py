"""Clients behind a reverse proxy: whose `X-Forwarded-…` headers count, and who is asking then.

Only what a trusted address says is believed, and of `X-Forwarded-For` only as far as trusted proxies wrote
it: from the right, the first address that is not trusted is the client.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from engine.errors import ConfigError


class Proxies:
    """The proxies of `Config.trusted_proxies`: addresses or networks with commas between them.

    Raises:
        ConfigError: one of them is neither.
    """

    def __init__(self, trusted: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in filter(None, (part.strip() for part in trusted.split(","))):
            try:
                self._networks.append(ip_network(text))
            except ValueError as error:
                raise ConfigError(f"trusted_proxies: {error}") from None

    def trusts(self, address: str) -> bool:
        """Return whether requests from this address tell the truth about whose they are."""
        if not self._networks:
            return False
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)

    def look_through(self, address: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Return the client's address and the headers as the client sent them to the proxy.

        `headers` are by lower-case name; a forwarded host takes the place of the proxy's own.
        """
        if not self.trusts(address):
            return address, headers
        for part in reversed(headers.get("x-forwarded-for", "").split(",")):
            if part := part.strip():
                address = part[:64]
                if not self.trusts(address):
                    break
        if host := headers.get("x-forwarded-host", "").rpartition(",")[2].strip():
            headers = headers | {"host": host}
        return address, headers
