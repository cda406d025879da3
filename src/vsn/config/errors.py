"""The error of a setting, and the check that raises it."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot be used; the message says what came, what is allowed, what to do."""


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` unless the condition holds."""
    if not condition:
        raise ConfigError(message)
