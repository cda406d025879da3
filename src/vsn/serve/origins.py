"""Decide which hosts, origins and paths belong to the service, directly and behind a proxy."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from vsn.config import ConfigError, ServeConfig
from vsn.serve.problems import Problem

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable only from this machine."""
    return host in LOOPBACK or host.startswith("127.")


class Origins:
    """Which requests are for this service, and which of them come from its own page.

    The check of the host stops DNS rebinding: a page of another site whose name was made to resolve to this machine.
    The check of the origin stops pages of other sites that send requests through the browser of a visitor.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._public_url = config.public_url
        public = urlsplit(config.public_url or "")
        self._public_origin = _origin(config.public_url or "")
        self.prefix = public.path.rstrip("/")
        """Path of the public URL: "/vsn" for https://example.com/vsn/."""
        self._networks = [ip_network(one) for one in config.trusted_proxies]
        # Without a public URL a service that listens for other machines cannot know its names.
        self._names = {*LOOPBACK, config.host, public.hostname or ""} - {""}
        self._any_name = config.public_url is None and not is_loopback(config.host)

    def inner_path(self, path: str) -> str:
        """Return the path of a request without the prefix, which a proxy may have left in place or removed."""
        has_prefix = self.prefix and path.startswith(self.prefix + "/")
        return path[len(self.prefix) :] if has_prefix else path

    def refusal(self, headers: Headers, peer: str) -> Problem | None:
        """Return why a request is refused, from its headers and the address that it comes from; None if it is not."""
        forwarded_host, scheme = "", ""
        # Anybody can send these headers.
        if self._is_trusted(peer):
            # Proxies that append leave what a client sent in front.
            forwarded_host, scheme = (
                ",".join(headers.getlist(name)).rpartition(",")[2].strip()
                for name in ("x-forwarded-host", "x-forwarded-proto")
            )
        host = forwarded_host or headers.get("host", "")
        origin = headers.get("origin")
        name = "X-Forwarded-Host" if forwarded_host else "Host"
        for header, value, url in ((name, host, f"//{host}"), ("Origin", origin or "", origin or "")):
            try:
                _ = urlsplit(url).port
            except ValueError:
                return Problem("bad_header", f"The header {header} is {value[:80]!r}.")
        if scheme not in ("", *_DEFAULT_PORTS):
            limit = "Expected http or https."
            return Problem("bad_header", f"The header X-Forwarded-Proto is {scheme[:80]!r}.", limit=limit)
        # A proxy that is believed knows its names; with a public URL there is only one.
        if not (self._any_name or self._is_known(host) or (forwarded_host and self._public_url is None)):
            guess = scheme or headers.get("x-forwarded-proto", "")
            return self._unknown_host(host, guess if guess in _DEFAULT_PORTS else "http")
        # Browsers send Origin with every POST of a page; programs such as curl do not.
        if origin is not None and not self._is_own(origin, host, scheme):
            return self._other_origin(origin, host)
        return None

    def _is_trusted(self, peer: str) -> bool:
        if not self._networks:
            return False
        try:
            address = ip_address(peer)
        except ValueError:  # a socket file, or none
            return False
        # As a socket for both versions of IP reports IPv4.
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

    def _is_known(self, host: str) -> bool:
        # Without the port: proxies change or remove it, and it protects from nothing.
        name = urlsplit(f"//{host}").hostname or ""
        if name in self._names:
            return True
        # Probes use the address; only names can be made to resolve to this machine.
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _is_own(self, origin: str, host: str, scheme: str) -> bool:
        own = _origin(origin)
        if own is None or self._public_url is not None:
            return own is not None and own == self._public_origin
        # Whether a proxy in front uses TLS is known only from one that is believed.
        return own == _origin(f"{own[0]}://{host}") and scheme in ("", own[0])

    def _unknown_host(self, host: str, scheme: str) -> Problem:
        # Strangers behind a proxy do not learn where the service listens.
        names = urlsplit(self._public_url).hostname if self._public_url else ", ".join(sorted(self._names))
        return Problem(
            "unknown_host",
            f"The request is for the host {host[:80]!r}.",
            limit=f"Expected {names}, or an address.",
            hint=self._advice(f"{scheme}://{host}/", "If that is the name of this service"),
        )

    def _other_origin(self, origin: str, host: str) -> Problem:
        own = self._public_url or host
        return Problem(
            "other_origin",
            f"The request comes from a page of {origin[:80]!r}.",
            limit=f"Only the page of {own[:80]} may send requests.",
            hint=self._advice(f"{origin}/", "If that is this service behind a proxy"),
        )

    def _advice(self, url: str, case: str) -> str:
        """Say which public URL would allow the request, unless what the request has cannot be one."""
        open_it = f"Use {self._public_url}. " if self._public_url else ""
        try:
            ServeConfig(public_url=url)
        except ConfigError:
            return open_it or "Send it from a program, or from the page of the service."
        path = "" if self._public_url else " (with its path, if it has one)"
        return f"{open_it}{case}, start it with --public-url {url}{path}."


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of a URL; None for one without them, such as the origin "null"."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]
