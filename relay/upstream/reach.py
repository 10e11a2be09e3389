"""Is a target there? Dialled as mail would dial it, without logging in."""

import asyncio
import contextlib

from relay.core.login import Target
from relay.upstream.dial import Dialler
from relay.upstream.failure import UpstreamFailure
from relay.upstream.race import Slots
from relay.upstream.smtp import Secured


class DialReach:
    """A Reach over the dialler that mail uses.

    It has a connection of its own, for a moment and without a login: mail to one target that uses all there may be must
    not keep another target from being found again.
    """

    def __init__(self, dialler: Dialler[Secured], slots: Slots) -> None:
        self._dialler = dialler
        self._slots = slots

    async def reach(self, target: Target, *, patience: float) -> None:
        # What comes of it is told to the dialler's watcher.
        with contextlib.suppress(UpstreamFailure):
            deadline = asyncio.get_running_loop().time() + patience
            secured = await self._dialler.dial(target, deadline, self._slots)
            await secured.quit()
