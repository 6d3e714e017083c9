"""What users define as backends: what plugs into a port from outside of the contract. They survive a restart."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass

from lamina_kit.names import Pattern
from lamina_vswitch.domain.offload.features import Takes

BACKEND_NAME = Pattern("hosts/{host}/switches/{switch}/ports/{port}/backend")

INTERFACE_BYTES = (1, 15)
QUEUES = (1, 16)
RING_BYTES = (64 << 10, 64 << 20)
DEFAULT_RING_BYTES = 4 << 20


class BackendState(enum.IntEnum):
    """What a backend is doing; the numbers are those of the contract."""

    OPEN = 1
    WAITING = 2
    ENDED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Tap:
    """A TAP device: interface of 1 to 15 bytes, 1 to 16 queues, whether to bring it up."""

    interface: str
    queues: int = 1
    up: bool = False


@dataclass(frozen=True, slots=True)
class Packet:
    """An interface by a packet socket: whether to see what is for others, bytes of its ring, 64 KiB to 64 MiB."""

    interface: str
    promiscuous: bool = False
    ring_bytes: int = DEFAULT_RING_BYTES


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram socket: own address, peer's address, empty for that of whoever sent last."""

    local_address: str
    remote_address: str = ""
    allow_remote: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream socket: where it connects to, or listens at."""

    address: str
    listen: bool = False
    allow_remote: bool = False


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """Capture files to play and to write, absolute paths, empty for none; whether the file's distances in time are
    kept."""

    input_path: str = ""
    output_path: str = ""
    original_timing: bool = False


@dataclass(frozen=True, slots=True)
class Veth:
    """A device of the kernel: its interface on the machine, of 1 to 15 bytes, and whether to bring it up."""

    interface: str
    up: bool = False


FAMILIES = {Datagram: ("unix", "udp"), Stream: ("unix", "tcp")}
"""Which addresses the sockets of a kind have."""

Kind = Tap | Packet | Datagram | Stream | CaptureFile | Veth
_KINDS: dict[str, type[Kind]] = {
    "tap": Tap,
    "packet": Packet,
    "datagram": Datagram,
    "stream": Stream,
    "file": CaptureFile,
    "veth": Veth,
}


@dataclass(frozen=True, slots=True)
class BackendDefinition:
    """The backend of a port, which is its only one: 1 to 65536 frames may wait for it."""

    switch: str
    port: str
    kind: Kind
    queue_frames: int


@dataclass(frozen=True, slots=True)
class BackendView:
    """A backend as it is now; `definition` shows the address that the system chose."""

    name: str
    definition: BackendDefinition
    state: BackendState
    detail: str
    takes: Takes


def kind_word(kind: Kind) -> str:
    """Return the name of a kind: that of its field in the contract."""
    return next(word for word, made in _KINDS.items() if type(kind) is made)


def to_text(kind: Kind) -> str:
    """Return a kind as canonical text, for a database."""
    return json.dumps([kind_word(kind), asdict(kind)], sort_keys=True)


def from_text(text: str) -> Kind:
    """Return the kind of a canonical text. Raises `ValueError` or a `LookupError` or `TypeError` for another text."""
    word, fields = json.loads(text)
    return _KINDS[word](**fields)
