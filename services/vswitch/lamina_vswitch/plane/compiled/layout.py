"""Where things lie in the memory that the plane's compiled functions and Python share.

A *job* is one burst on its way through a switch: what it needs, how far it came, and what became of it. A *row* is one
port. A *look* is the head of one frame that was loaded ahead of its turn. All offsets are in bytes.
"""

from __future__ import annotations

# A job
HEAD, PORTS, SLOT, VLAN, MTU, NOW = range(0, 48, 8)
"""Address of the MAC table's head, of the rows; slot of the port where the burst entered, its VLAN, the MTU, time."""
BURST, FIRST, COUNT, LOOKS, LOOKED = range(48, 88, 8)
"""Address of the burst (address and length of each frame), next frame, number of frames; address of the looks, and how
many frames were looked at."""
TOUCHED, TOUCHES, OUTBOX, POSTED, OUTBOX_SIZE = range(88, 128, 8)
"""Address of the reports of ports with a ring that frames were for; their number, in the end of those that Python has
to hear of; address of the outbox, the list of what Python delivers, its length, and how much fits."""
FLOODED, RECEIVED_BYTES, MOVED_FROM, NOTED, LAST_LEARNED = range(128, 168, 8)
"""Flooded frames, bytes of frames that were decided, where the first address that moved was before; whether anything
is noted in the pairs that follow; what learning said of the last frame that was learned from."""
PRIVATE = 168
"""Whether only this process and the kernel write the burst's memory: such frames may leave from where they lie."""
LEARNED = 192
"""Six pairs (how many frames, the first of them), by what learning said; the order is that of `domain.fdb.Learned`."""
DROPS = 320
"""64 pairs (how many frames, the first of them), by reason."""
REASONS = 64
ENTRIES, WANTED, KIND, SUMS, COUNTS, MOVED_VLAN, WAY = range(DROPS + 16 * REASONS, DROPS + 16 * REASONS + 56, 8)
"""Of a run with tags: address of the entries of the port by key, a key that has none yet, bits of the port, address of
the table of CRC-32, address of the counters of VLANs at trunks, VLAN of the first address that moved, slot of the
uplink that the frame which is being decided takes."""
JOB_BYTES = DROPS + 16 * REASONS + 64

DONE, SLOW, OUTBOX_FULL, LARGER_TABLE, FIRST_DROP, NEW_KEY = range(6)
"""How a run ended: all frames are decided; the next one is not for the plane; the outbox has to be emptied first. Or
how it paused, with rings not yet published: the MAC table has to grow; the frame before the next one is the first that
is dropped for its reason, and Python may want to know why; an entry of a VLAN has to be made."""

# A row, 128 bytes: a cache line that is read and one that is written
STATE, ROW_VLAN, RING, RING_MASK, SLOT_BYTES, FLOOD, FLOOD_SIZE, RECORDS = range(0, 64, 8)
"""Bits; access VLAN; address of the ring, 0 when Python delivers; slots less one; bytes of a slot; address of the list
of all ports of the VLAN that are up, and their number; whether trace records may stand in the slots."""
USED, NEXT, END, FULL, FIRST_FULL, STATUS, SENT, SENT_BYTES = range(64, 128, 8)
"""In this run: whether the ring was opened, next index, index at which the ring is full; frames that did not fit and
the first of them; a status. Since Python took them: frames and bytes that went in."""
WIRE = RING_MASK
"""Where a row has no ring: address of the port's wire to the kernel, or 0."""
WAKE, BROKE, LEFT = 1, 2, 4
"""What a status says: the consumer of a ring wants to be woken, or broke it; frames are left in a wire's list."""
ROW_SHIFT = 7
UP, PLAIN, FLOODS, UPLINK, FORMED = 1, 2, 4, 8, 16
"""Bits of a row's state: frames may pass; the plane may deliver here; the plane may flood from here; it leads out of
the host; the plane may decide about frames that enter here where tags and uplinks count."""

# A report, 32 bytes: slot of a port, then FULL to STATUS of its row
REPORT_SHIFT = 5

# A look, 64 bytes: the frame's first 16 bytes, keys and hashes of its addresses, its length, whether it has a tag
LOW, HIGH, SOURCE, SOURCE_HASH, TARGET, TARGET_HASH, LENGTH, TAGGED = range(0, 64, 8)
LOOK_SHIFT = 6
AHEAD = 16
"""How many frames ahead of their turn heads are loaded, and the places of their addresses fetched."""
LOOKS_KEPT = 32
FRAMES_AHEAD = 16
"""How many frames ahead of that the memory of heads is fetched."""

# An entry of the outbox, 32 bytes: slot of a port, frame, and its first 16 bytes as they were decided about
OUTBOX_SHIFT = 5
FORM_SHIFT, VLAN_SHIFT, TAG_SHIFT, LOST_SHIFT, REASON_SHIFT = 32, 36, 48, 49, 52
"""What a run with tags says above the slot: the form in which the frame leaves, its VLAN, whether it came with a tag,
whether it did not fit into the port's ring. With slot 0 it was dropped where it entered, for a reason."""

# An entry of a port and key (VLAN, and bit 12 for a provider's tag): address of what holds for the VLAN, 0 when the
# port does not carry it; number of uplinks that a frame may take, what decides among them, and their slots
ENTRY_VLAN, ENTRY_WAYS, ENTRY_BALANCING, ENTRY_SLOTS = range(0, 32, 8)
PROVIDER_KEY = 1 << 12
KEYS = 1 << 13

# What holds for a VLAN: a cache line, then what becomes of frames for a station at each port, by slot
HERE, FLOODS_HERE, EXPOSES, STANDBY, HEARERS, HEARD_BY = range(0, 48, 8)
"""Whether the plane may decide here, and flood; whether a trunk has it as its native VLAN, so that a tag within a frame
would be read there; whether somebody hears floods at another uplink alone; number of ports that hear floods, and
address of what becomes of the frames there."""
TARGETS = 64
"""0: not for the plane; below 0: dropped, the reason; above: the slot, and above it the form for each kind of tag, and
whether the port is a trunk or leads out of the host."""
TARGET_FORM_SHIFT, TRUNK_TARGET, UPLINK_TARGET = 32, 1 << 52, 1 << 53
FORM_BITS = 4
AS_IT_CAME, UNTAGGED, WITH_TAG, RETAGGED = range(1, 5)
"""Forms; their order is that of `domain.tagging.Form`."""

# Counters of a VLAN at trunks, 64 bytes
VLAN_RECEIVED, VLAN_RECEIVED_BYTES, VLAN_SENT, VLAN_SENT_BYTES, VLAN_FLOODED = range(0, 40, 8)
COUNTS_SHIFT = 6
TRUNK_PORT, UPLINK_PORT = 1, 2
"""Bits of the port where a burst enters."""

# A burst
PLACE_SHIFT = 4
LADEN = 1 << 40
"""Set in the length of a frame that carries an offload header or a trace record: not for the plane."""
CARRIED = 1 << 41
"""Set in the length of a frame of the kernel that other devices of the kernel take with its header, as it is."""
