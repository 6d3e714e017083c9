"""Names that controllers give: random suffixes and the hash of a pod template.

Source: k8s.io/apimachinery/pkg/util/rand (the alphabet has no vowels, so no words appear by chance) and
k8s.io/kubernetes/pkg/controller ComputeHash (32-bit FNV-1a).
"""

from __future__ import annotations

import re
from typing import Any

from lamina_orchestrator.domain.kinds.plain_object import canonical

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH = 5
LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


def suffix(entropy: bytes) -> str:
    """Five characters of a generated name from at least five random bytes."""
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in entropy[:SUFFIX_LENGTH])


def generated_name(base: str, entropy: bytes) -> str:
    """metadata.generateName with its suffix; a long base is cut so that the name stays within 63 characters."""
    return base[: 63 - SUFFIX_LENGTH] + suffix(entropy)


def template_hash(template: Any, collisions: int = 0) -> str:
    """Value of the `pod-template-hash` label for a pod template: equal templates give equal hashes.

    `collisions` is the Deployment's status.collisionCount; it moves the hash away from one that is taken.
    """
    value = 0x811C9DC5
    for byte in (canonical(template) + (str(collisions) if collisions else "")).encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in str(value))


def uid(entropy: bytes) -> str:
    """A version 4 UUID from 16 random bytes."""
    number = bytearray(entropy[:16])
    number[6] = number[6] & 0x0F | 0x40
    number[8] = number[8] & 0x3F | 0x80
    text = number.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_label(text: str) -> bool:
    """Whether the text is a DNS label: what namespaces, containers and node names are."""
    return LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether the text is a DNS subdomain name: what most objects are named by."""
    return len(text) <= 253 and SUBDOMAIN.fullmatch(text) is not None
