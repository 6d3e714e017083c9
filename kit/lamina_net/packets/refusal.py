"""Why bytes from the wire are not what they should be. Pure.

Parsers never raise: whatever the bytes, they return what was read or a `Refusal`, so that a caller writes
`if isinstance(packet, Refusal)` and counts it.
"""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """A reason for which a parser refuses bytes; the value says it in words."""

    TRUNCATED = "shorter than its header, or than a length in it says"
    VERSION = "of another version or hardware type"
    LENGTH = "a length that cannot be"
    CHECKSUM = "the checksum does not match"
    ADDRESS = "an address that cannot stand there"
    FRAGMENT = "a fragment that lies beyond the largest packet, or is not a multiple of eight bytes long"
    OVERLAP = "a fragment that overlaps another, or of a datagram one of whose fragments did"
    TOO_BIG = "larger than the link takes, and not to be fragmented"
    TTL = "its time to live has ended"
    OPERATION = "an operation or type that is not known"
