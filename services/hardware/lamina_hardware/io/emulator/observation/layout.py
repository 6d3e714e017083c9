"""Where the words of an observation lie: its head, the entries of the TLB that it counts, its queue.

head  0  sets, ways, tick, address of the table, address of the queue, capacity, count, lost, instructions before,
         root, sizes, index, forget, filled
     16  fills of one instruction, three words each: page of the address, physical page, kind
"""

from __future__ import annotations

SETS, WAYS, TICK, TABLE, QUEUE, CAPACITY, COUNT, LOST, BASE, ROOT, SIZES, INDEX, FORGET, FILLED = range(14)
FILLS = 16
MOST_FILLS = 8
HEAD_WORDS = FILLS + 3 * MOST_FILLS

KEY, OWNER, SECOND, PLACE, USED = range(5)
"""Words of an entry of the TLB."""
ENTRY_WORDS = 5
QUEUE_WORDS = 3
