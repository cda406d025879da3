"""The error of the hub."""

from __future__ import annotations


class HubError(ValueError):
    """Something that cannot be had from the hub or put there; the message says what to do."""
