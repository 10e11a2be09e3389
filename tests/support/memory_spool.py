"""A spool in memory: the plainest thing that keeps the promises of `core.ports.Spool` and `core.ports.Archive`.

It passes the same contract as the real one (tests/spool/test_contract.py), so tests of other rooms may use it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from relay.core.lifecycle import COMMANDS, ENDED, LEASE, TRANSITIONS, Event, Fate, State, after
from relay.core.login import Assignment
from relay.core.message import Content, MemoryBody
from relay.core.ports import Clock
from relay.core.spooled import (
    AttemptEntry,
    Claim,
    Claimed,
    Deposit,
    Entry,
    Lane,
    Page,
    RecipientEntry,
    Record,
    SpoolUnavailable,
    Stats,
    UnknownMessage,
    Unreadable,
)
from relay.spool.clock import SpoolClock


@dataclass(slots=True)
class _Item:
    """One message."""

    deposit: Deposit
    content: Content | None
    state: State
    assignment: Assignment
    due: float
    expires: float
    lease: float | None
    recipients: list[RecipientEntry]
    history: list[AttemptEntry] = field(default_factory=list)
    attempts: int = 0
    tries: int = 0
    maybe_twice: bool = False
    wish: Event | None = None
    reason: str | None = None
    finished: float | None = None

    @property
    def lane(self) -> Lane:
        return Lane.of(self.assignment)

    @property
    def fates(self) -> list[Fate]:
        return [recipient.fate for recipient in self.recipients]


class MemorySpool:
    """`problem` can be set by a test: then nothing that changes the spool is done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._time = SpoolClock(clock, time=0.0, wall=clock.now())
        self._items: dict[str, _Item] = {}
        self._lanes: list[Lane] = []
        self._noted = (0.0, clock.now())  # what the clocks said when it was last written down
        self.problem: str | None = None

    def reopen(self) -> None:
        """As if the process had died, and another had opened what it left behind."""
        self._time = SpoolClock(self._clock, time=self._noted[0], wall=self._noted[1])
        self._noted = (self._time.now(), self._clock.now())
        for item in list(self._items.values()):
            if item.state is State.ACTIVE:
                self._lose(item)

    def _change(self) -> float:
        if self.problem is not None:
            raise SpoolUnavailable(self.problem)
        return self._time.now()

    def _note_lane(self, item: _Item) -> None:
        if item.lane not in self._lanes:
            self._lanes.append(item.lane)

    def _find(self, queue_id: str) -> _Item:
        try:
            return self._items[queue_id]
        except KeyError:
            raise UnknownMessage(queue_id) from None

    # -- Spool --------------------------------------------------------------------------------------------------------

    async def put(self, deposit: Deposit) -> None:
        now = self._change()
        if deposit.message.queue_id in self._items:
            raise SpoolUnavailable("there is a message of this queue id already")
        attempted = deposit.claimed or deposit.record is not None
        content = deposit.message.content
        body = MemoryBody(b"".join(content.body.chunks()))
        item = _Item(
            deposit=deposit,
            content=None if deposit.ended else content._replace(body=body),
            state=State.ACTIVE if attempted else State.QUEUED,
            assignment=deposit.assignment,
            due=now,
            expires=now + deposit.max_age,
            lease=now + LEASE if attempted else None,
            recipients=[
                RecipientEntry(str(recipient), Fate.PENDING, None, None, None)
                for recipient in deposit.message.envelope.recipients
            ],
        )
        self._items[deposit.message.queue_id] = item
        self._note_lane(item)
        if deposit.record is not None:
            await self._apply(item, deposit.record)

    async def claim(self, limit: int, *, skip: Collection[Lane] = ()) -> Claimed:
        now = self._change()
        queued = [item for item in self._items.values() if item.state is State.QUEUED]
        lanes = frozenset(item.lane for item in queued)
        # Where two are as old, the lane that was there first.
        waiting = sorted(
            (item for item in queued if item.lane not in skip),
            key=lambda item: (item.due, self._lanes.index(item.lane)),
        )
        taken = self._fair_share([item for item in waiting if item.due <= now], limit)
        for item in taken:
            item.state, item.lease = State.ACTIVE, now + LEASE
        following = [item.due for item in waiting if item.state is State.QUEUED]
        return Claimed(
            claims=tuple(self._claim(item, now) for item in taken),
            lanes=lanes,
            next_due=max(0.0, min(following) - now) if following else None,
        )

    @staticmethod
    def _fair_share(due: list[_Item], limit: int) -> list[_Item]:
        """Rounds over the lanes, those with the oldest mail first; in each round all get the same."""
        lanes: dict[Lane, list[_Item]] = {}
        for item in due:
            lanes.setdefault(item.lane, []).append(item)
        taken: list[_Item] = []
        while lanes and len(taken) < limit:
            share = max(1, (limit - len(taken)) // len(lanes))
            visited = list(lanes)[: limit - len(taken)]
            counts = {}
            for lane in visited:
                counts[lane] = len(lanes[lane][:share])
                taken += lanes[lane][:share]
                del lanes[lane][:share]
            lanes = {lane: lanes[lane] for lane in visited if counts[lane] == share}
        return taken

    @staticmethod
    def _claim(item: _Item, now: float) -> Claim:
        assert item.content is not None
        return Claim(
            message=item.deposit.message._replace(content=item.content),
            assignment=item.assignment,
            pending=tuple(number for number, fate in enumerate(item.fates) if fate is Fate.PENDING),
            attempts=item.attempts,
            age_left=item.expires - now,
            received=item.deposit.received,
            failed_before=any(fate in (Fate.BOUNCED, Fate.EXPIRED) for fate in item.fates),
        )

    async def record(self, queue_id: str, record: Record) -> None:
        self._change()
        await self._apply(self._find(queue_id), record)

    async def _apply(self, item: _Item, record: Record) -> None:
        settlement, wall = record.settlement, self._clock.now()
        item.tries += 1
        for one in settlement.verdicts:
            recipient = item.recipients[one.number]
            pending = one.fate is Fate.PENDING
            if recipient.fate is Fate.PENDING or (not pending and recipient.fate is not Fate.DELIVERED):
                item.recipients[one.number] = RecipientEntry(
                    recipient.address, one.fate, one.reply, one.message_id, None if pending else wall
                )
        heard = sorted((one.outcome, one.phase, one.reply, one.number) for one in settlement.verdicts)
        for (outcome, phase, reply), same in groupby(heard, key=lambda line: line[:3]):
            numbers = [line[3] for line in same]
            item.history.append(AttemptEntry(item.tries, wall, record.endpoint, outcome, phase, reply, numbers))
        if record.notice is not None and record.notice.message.queue_id not in self._items:
            await self.put(record.notice)
        event, reason = settlement.event, settlement.reason
        if item.state is not State.ACTIVE:
            if Fate.PENDING in item.fates:
                return
            event = Event.DELIVER if set(item.fates) <= {Fate.DELIVERED} else Event.FAIL
            if (item.state, event) not in TRANSITIONS:
                return
        elif item.wish is Event.HOLD and event in (Event.DEFER, Event.HOLD):
            event, reason = Event.HOLD, "held by the operator"
        elif item.wish is Event.DELETE and event is not Event.DELIVER:
            event = Event.DELETE
        item.attempts += settlement.counted
        item.maybe_twice |= settlement.ambiguous
        item.due, item.reason = self._time.now() + settlement.delay, reason
        self._move(item, after(item.state, event))

    def _move(self, item: _Item, state: State) -> None:
        item.state, item.lease, item.wish = state, None, None
        item.finished = self._time.now() if state in (*ENDED, State.FAILED) else None
        if state is State.DELETED:
            item.recipients = [
                replace(recipient, fate=Fate.DELETED, settled=self._clock.now())
                if recipient.fate is Fate.PENDING
                else recipient
                for recipient in item.recipients
            ]
        if state in ENDED:
            item.content = None

    def _lose(self, item: _Item) -> None:
        item.due, item.maybe_twice = self._time.now(), True
        item.reason = "its attempt was broken off, and may have succeeded"
        self._let_go(item)

    def _let_go(self, item: _Item) -> None:
        if item.wish is Event.HOLD:
            item.reason = "held by the operator"
        self._move(item, after(State.ACTIVE, item.wish or Event.LOSE))

    async def hold(self, queue_id: str, reason: str) -> None:
        self._change()
        item = self._find(queue_id)
        if item.state is State.ACTIVE:
            item.reason = reason
            self._move(item, after(State.ACTIVE, item.wish or Event.HOLD))

    async def give_back(self, queue_ids: Collection[str]) -> None:
        self._change()
        for queue_id in queue_ids:
            item = self._items.get(queue_id)
            if item is not None and item.state is State.ACTIVE:
                self._let_go(item)

    async def renew(self, queue_ids: Collection[str]) -> None:
        now = self._change()
        self._noted = (now, self._clock.now())
        for queue_id in queue_ids:
            item = self._items.get(queue_id)
            if item is not None and item.state is State.ACTIVE:
                item.lease = now + LEASE

    async def reclaim(self, alive: Collection[str]) -> Sequence[str]:
        now = self._change()
        lost = [
            (queue_id, item)
            for queue_id, item in self._items.items()
            if item.state is State.ACTIVE and queue_id not in alive and item.lease is not None and item.lease <= now
        ]
        for _, item in lost:
            self._lose(item)
        return [queue_id for queue_id, item in lost if item.state is State.QUEUED]

    async def hold_over_age(self, blocked: Collection[Lane]) -> Sequence[str]:
        now = self._change()
        held = [
            (queue_id, item)
            for queue_id, item in self._items.items()
            if item.state is State.QUEUED and item.expires <= now and item.lane in blocked
        ]
        for _, item in held:
            item.reason = "over age while it could not be sent"
            self._move(item, after(State.QUEUED, Event.HOLD))
        return [queue_id for queue_id, _ in held]

    async def purge(self, *, failed_for: float, ended_for: float) -> int:
        now = self._change()
        gone = [
            queue_id
            for queue_id, item in self._items.items()
            if item.finished is not None
            and item.finished < now - (failed_for if item.state is State.FAILED else ended_for)
        ]
        for queue_id in gone:
            del self._items[queue_id]
        return len(gone)

    async def close(self) -> None:
        await self.renew(())

    # -- Archive ------------------------------------------------------------------------------------------------------

    async def stats(self) -> Stats:
        items = self._items.values()
        waiting = [item.deposit.received for item in items if item.state in (State.QUEUED, State.ACTIVE, State.HELD)]
        counts = {state: sum(item.state is state for item in items) for state in State}
        return Stats(counts, max(0.0, self._clock.now() - min(waiting, default=self._clock.now())))

    async def page(
        self, *, state: State | None = None, search: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page:
        found = [
            (number, queue_id)
            for number, (queue_id, item) in enumerate(self._items.items(), 1)
            if number > int(cursor or 0)
            and (state is None or item.state is state)
            and (search is None or search.lower() in self._words(queue_id, item))
        ]
        page = found[:limit]
        return Page(
            tuple(replace(self._entry(queue_id), history=()) for _, queue_id in page),
            str(page[-1][0]) if len(found) > limit else None,
        )

    @staticmethod
    def _words(queue_id: str, item: _Item) -> str:
        envelope = item.deposit.message.envelope
        said = [word for one in item.recipients for word in (one.address, one.reply or "", one.message_id or "")]
        return "\n".join(
            [queue_id, item.assignment.identity, str(envelope.reverse_path), item.reason or "", *said]
        ).lower()

    async def entry(self, queue_id: str) -> Entry:
        return self._entry(queue_id)

    def _entry(self, queue_id: str) -> Entry:
        item = self._find(queue_id)
        message = item.deposit.message
        return Entry(
            queue_id=queue_id,
            state=item.state,
            assignment=item.assignment,
            reverse_path=str(message.envelope.reverse_path),
            size=message.content.size,
            received=item.deposit.received,
            due=self._time.wall(item.due) if item.state is State.QUEUED else None,
            attempts=item.attempts,
            maybe_twice=item.maybe_twice,
            reason=item.reason,
            finished=None if item.finished is None else self._time.wall(item.finished),
            recipients=tuple(item.recipients),
            history=tuple(item.history),
        )

    async def header(self, queue_id: str) -> bytes | None:
        content = self._find(queue_id).content
        return None if content is None else content.header

    async def content(self, queue_id: str) -> Content:
        content = self._find(queue_id).content
        if content is None:
            raise Unreadable("its content is not in the spool")
        return content

    async def act(self, queue_id: str, event: Event, assignment: Assignment | None = None) -> State:
        now = self._change()
        assert event in COMMANDS
        item = self._find(queue_id)
        if item.state is State.ACTIVE and event in (Event.HOLD, Event.DELETE):
            item.wish = event
            return State.ACTIVE
        following = after(item.state, event)
        if following is State.QUEUED:
            item.due, item.attempts, item.expires = now, 0, now + item.deposit.max_age
            item.reason = (
                "released by the operator" if event is Event.RELEASE else ("to be retried at once, by the operator")
            )
            item.assignment = assignment or item.assignment
            self._note_lane(item)
            item.recipients = [
                replace(recipient, fate=Fate.PENDING, settled=None)
                if item.state is State.FAILED and recipient.fate in (Fate.BOUNCED, Fate.EXPIRED)
                else recipient
                for recipient in item.recipients
            ]
        elif following is State.HELD:
            item.reason = "held by the operator"
        self._move(item, following)
        return following
