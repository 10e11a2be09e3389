"""How many messages a connection carries, and when its successor is dialled. Pure.

SparkPost ends a connection after so many messages, and a new one costs eight round trips: time for as many messages to
pile up on the others. Connections that are made together, as after an outage, and share their load evenly, would all be
worn out at once, and nobody would be left to carry anything. So their ends are kept apart, and a connection whose end
is near has its successor dialled before it is needed.
"""

from bisect import bisect_left
from collections.abc import Collection
from itertools import pairwise
from typing import Final

DIAL: Final = 10  # messages that a connection carries while another is dialled, one in each round trip


def lifetime(messages: int, connections: int, left: Collection[int]) -> int:
    """How many messages a new connection is to carry: `messages`, or fewer to end at another time than the others.

    `left`: how many each of the others has to go. There may be so many `connections`; their ends are spread over a
    quarter of what they carry, as what is not carried is paid for with more dials. Where the ends of others leave no
    room for that, it is as far from the next as can be, and carries half at least.
    """
    apart, least = max(1, messages // (4 * connections)), messages - messages // 2
    ends = sorted(set(left))

    def room(end: int) -> int:
        following = bisect_left(ends, end)
        return min([apart, *(abs(end - other) for other in ends[max(0, following - 1) : following + 1])])

    # Of all ends with the same room, the last is one of these: there may be millions of others.
    below = [end - apart for end in ends]
    between = [(end + following + 1) // 2 for end, following in pairwise(ends)]
    possible = [end for end in [*below, *between] if least < end < messages]
    return max([least, *possible, messages], key=lambda end: (room(end), end))


def near_end(messages: int) -> int:
    """How many messages a connection that carries so many has to go when its successor is dialled."""
    return min(DIAL, messages // 2)
