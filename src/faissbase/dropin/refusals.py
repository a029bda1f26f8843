"""What is refused from afar, and why."""

from __future__ import annotations


class Refused(RuntimeError):
    """Not from afar; says what is possible instead."""
