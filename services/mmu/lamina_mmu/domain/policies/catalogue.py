"""Lamina's own policies by name. Pure."""

from __future__ import annotations

from lamina_mmu.domain.policies.arc import Arc
from lamina_mmu.domain.policies.clock import Clock
from lamina_mmu.domain.policies.fifo import Fifo
from lamina_mmu.domain.policies.lfu import Lfu
from lamina_mmu.domain.policies.lru import Lru
from lamina_mmu.domain.policies.mglru import MultiGenerationLru
from lamina_mmu.domain.policies.opt import Opt
from lamina_mmu.domain.policies.s3fifo import S3Fifo
from lamina_mmu.domain.policies.second_chance import SecondChance
from lamina_mmu.domain.policies.sieve import Sieve
from lamina_mmu.domain.policies.two_q import TwoQ
from lamina_mmu.domain.policy import Policy

OWN: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (Fifo, Lru, Clock, SecondChance, Lfu, TwoQ, Arc, Sieve, S3Fifo, MultiGenerationLru, Opt)
}
"""In the order in which they are taught."""
