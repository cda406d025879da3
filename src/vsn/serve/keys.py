"""Check the key of a request: a file of keys, sent as a bearer token or as the password of a browser's prompt."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import stat
from collections.abc import Sequence
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path

from vsn.config import ConfigError

CLIENT: ContextVar[str] = ContextVar("client", default="a client")
"""Who sent the request of the running task, for the log: the name of its key."""
CHALLENGES = ('Basic realm="vsn", charset="UTF-8"', 'Bearer realm="vsn"')
"""Headers WWW-Authenticate of a 401, one each: browsers do not split a list, and prompt for the first they know."""
_MIN_CHARACTERS = 16
_FORMAT = "one NAME:KEY a line"
_MAKE = "openssl rand -hex 24"


class ApiKeys:
    """The keys that a service accepts, without the keys themselves: only their hashes are kept.

    Args:
        keys: name and key; a name with several keys is allowed, for the time in which one replaces another.
    """

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        self._hashes = [(name, _hash(key.encode())) for name, key in keys]

    def name_of(self, authorization: str) -> str | None:
        """Return the name of the key in a header Authorization (Bearer, or Basic with any user); None without a valid one.

        The time taken does not depend on how much of a key is right, nor on which key it is.
        """
        sent = _hash(_sent_key(authorization))
        valid = [name for name, known in self._hashes if hmac.compare_digest(sent, known)]
        return valid[0] if valid else None


def read_keys(path: Path) -> ApiKeys:
    """Read a file of keys, `NAME:KEY` a line; empty lines and lines that begin with # are skipped.

    Raises:
        ConfigError: the file cannot be read, every user may read it, a line is not as described, or it holds no key. No
            message contains a key.
    """
    try:
        # Of the open file: a name could be given to another one in between.
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"The keys in {path} cannot be read: {reason}.") from None
    # The group may read it, as secrets of containers are often mounted. Windows has no such modes.
    if os.name != "nt" and mode & 0o007:
        raise ConfigError(f"Every user of this machine has access to {path} (mode {mode:04o}): run chmod 600 {path}")
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, key = line.strip().partition(":")
        place = f"Line {number} of {path}"
        if not (name and colon and key):
            raise ConfigError(f"{place} is not {_FORMAT}. To make one: echo NAME:$({_MAKE}) >> {path}")
        if not (key.isascii() and key.isprintable()) or " " in key or len(key) < _MIN_CHARACTERS:
            raise ConfigError(
                f"{place}: the key of {name!r} has {len(key)} characters; it must have at least {_MIN_CHARACTERS}, all "
                f"ASCII and no spaces. To make one: {_MAKE}"
            )
        if key in keys:
            raise ConfigError(f"{place}: {name!r} has the key of {keys[key]!r}. Each needs its own.")
        keys[key] = name
    if not keys:
        raise ConfigError(f"{path} holds no key. Expected {_FORMAT}: echo NAME:$({_MAKE}) >> {path}")
    return ApiKeys([(name, key) for key, name in keys.items()])


def _sent_key(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        # Headers are read as Latin-1, which has a byte for each character.
        return value.encode("latin-1", errors="replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _hash(key: bytes) -> bytes:
    # Hashes have one length: to compare keys of different lengths would show that of the valid one.
    return sha256(key).digest()
