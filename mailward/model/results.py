"""What a decision found out, as a value with its cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Publication(Enum):
    """Whether the DNS shows the public half of a signing key."""

    PUBLISHED = "published"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # the DNS did not answer; nothing is concluded from that


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """The state of one selector's record, and what was wrong with it (empty where nothing was)."""

    state: Publication
    reason: str = ""
