"""Fields that the contract has and no engine obeys yet: a request that sets one is refused, so that none is ignored.

In the contract their comments begin with *Planned*. A field leaves this list with the change that obeys it.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from lamina_kit.errors import Unimplemented

SANDBOX = {
    "network": "S-29",
    "namespaces": "S-25",
    "security": "S-30",
    "sysctls": "S-25",
    "log_directory": "S-24",
    "handler": "S-24",
    "overhead": "S-26",
    "cgroup_parent": "S-26",
}
CONTAINER = {
    "mounts": "S-24 S-28",
    "devices": "S-24",
    "security": "S-30",
    "namespaces": "S-25",
    "stdin": "S-24",
    "stdin_once": "S-24",
    "tty": "S-24",
    "log_path": "S-24",
    "stop_signal": "S-24",
}
RESOURCES = {
    "cpu_burst_ns": "S-26",
    "cores": "S-26",
    "memory_high_bytes": "S-26",
    "memory_low_bytes": "S-26",
    "memory_min_bytes": "S-26",
    "pids_limit": "S-26",
    "io_weight": "S-26",
    "io_limits": "S-26",
    "hugepage_limits": "S-26",
    "oom_score_adjust": "S-26",
    "oom_group": "S-26",
    "memory_nodes": "S-26",
    "settings": "S-26",
}


def refuse(path: str, message: Message, unserved: Mapping[str, str]) -> None:
    """Refuses a message at `path` in which a field of `unserved` (name → systems) is set.

    Raises `Unimplemented` `NOT_SERVED_YET`, which names the first such field in the order of their numbers.
    """
    for field, _ in message.ListFields():
        if field.name in unserved:
            raise Unimplemented(
                f"No engine obeys {path}.{field.name} yet: it waits for {unserved[field.name]}.",
                reason="NOT_SERVED_YET",
                next_step="Leave the field out.",
                field=f"{path}.{field.name}",
                systems=unserved[field.name],
            )
