"""Which policy a group has, and under which numbers policies remember pages: a part of `machine`."""

from __future__ import annotations

from lamina_kit.errors import InvalidArgument, NotFound
from lamina_mmu.domain.frames.rmap import ReverseMap
from lamina_mmu.domain.frames.table import FrameTable, Use
from lamina_mmu.domain.groups.group import Group, GroupTree
from lamina_mmu.domain.handles import HandleTable
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.policies.replacement import Replacement
from lamina_mmu.domain.policy import Policy
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import Vma

OBJECT_PAGE = 1 << 60
"""Added to the number of a page of an object, so that it is none of a space's."""


class PolicyChoice:
    """The policies of one host by name, and that of each group."""

    policies: dict[str, type[Policy]]
    default_policy: type[Policy]
    frames: FrameTable
    rmap: ReverseMap
    groups: GroupTree
    policy: Replacement
    spaces: HandleTable[Space]
    objects: HandleTable[MemoryObject]
    slows_down: bool
    protects: bool

    def live_policy(self, name: str) -> type[Policy]:
        """Returns a policy that can serve faults; POLICY_UNKNOWN, or POLICY_OFFLINE when it works in replays only."""
        found = self.policies.get(name)
        if found is None:
            raise NotFound(
                f"There is no replacement policy {name}.",
                reason="POLICY_UNKNOWN",
                next_step=f"Choose one of: {', '.join(sorted(self.policies))}.",
            )
        if found.offline:
            raise InvalidArgument(
                f"The policy {name} needs to know the future, so it works in replays only.",
                reason="POLICY_OFFLINE",
                next_step="Replay a trace with it, or choose another policy for live memory.",
            )
        return found

    def policy_of(self, group: Group) -> tuple[type[Policy], dict[str, int]]:
        """Returns the policy of a group with its parameters: its own, or the nearest above; else the default one."""
        for level in group.path:
            if level.policy:
                return self.live_policy(level.policy), level.policy_values
        return self.default_policy, {}

    def choose_default(self, policy: type[Policy]) -> None:
        """Gives a policy to all groups that name none, and have none above that does."""
        self.default_policy = policy
        for group in self.groups.ordered():
            if not any(level.policy for level in group.path):
                self.policy.change(group.id)

    def _make_policy(self, group_id: int) -> Policy:
        group = self.groups.get(group_id)
        policy, values = self.policy_of(group)
        made = policy(self.capacity(group_id), values)
        made.group = group.number
        return made

    def watch_limits(self) -> None:
        """Notes whether any group has protection, or slows its faults down."""
        groups = self.groups.ordered()
        self.slows_down = any(one.high_bytes is not None or one.swap_high_bytes is not None for one in groups)
        self.protects = any(one.min_bytes or one.low_bytes for one in groups)

    def capacity(self, group_id: int) -> int:
        """Returns the frames that a group may have, itself and all above it considered; at least 1."""
        limits = [level.limit for level in self.groups.get(group_id).path if level.limit is not None]
        return max(1, min(limits, default=self.frames.count - 1))

    def page_number(self, frame: int) -> int:
        """Returns the number under which a page is remembered: its place in its object, or in its newest space."""
        frames = self.frames
        if frames.use[frame] == Use.OBJECT:
            return self.object_page(frames.owner[frame], frames.index[frame])
        for space_id, vpn in self.rmap.of(frame):
            return self.space_page(self.spaces.slot(space_id).number, vpn)
        return 0

    def object_page(self, object_id: int, page: int) -> int:
        """Returns the number of a page of an object."""
        return OBJECT_PAGE | self.objects.slot(object_id).number << 28 | page

    def space_page(self, number: int, vpn: int) -> int:
        """Returns the number of a page of the space with a number."""
        return number << 36 | vpn

    def page_of(self, space: Space, vma: Vma, vpn: int) -> int:
        """Returns the number of the page that a mapping shows at a place of a space."""
        if vma.object:
            return self.object_page(vma.object, vma.object_page(vpn))
        return self.space_page(space.number, vpn)
