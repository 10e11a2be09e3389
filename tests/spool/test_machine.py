"""Any history of a spool, on the disk and in memory side by side: they agree, and no recipient ever vanishes."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from relay.core.lifecycle import COMMANDS, LEASE, Event, Fate, IllegalTransition, State
from relay.core.login import Assignment
from relay.core.spooled import Claimed, Entry, Lane, Record, SpoolUnavailable, UnknownMessage
from tests.spool.homes import AnySpool, MemoryHome, SqliteHome
from tests.support.clock import ManualClock
from tests.support.mail import LARGE, SMALL, deposit, record

CREDENTIALS = ("a", "b")
SUBACCOUNTS = (None, 1)
LANES = [Lane(credential, subaccount) for credential in CREDENTIALS for subaccount in SUBACCOUNTS]

# What may become of one recipient; the event follows from all of them, as `settle` has it.
FATES = st.sampled_from([Fate.PENDING, Fate.DELIVERED, Fate.BOUNCED])
OUTCOMES = st.tuples(
    st.lists(FATES, min_size=3, max_size=3), st.booleans(), st.booleans(), st.booleans(), st.floats(0, 300)
)


def _record(fates: list[Fate], held: bool, expired: bool, counted: bool, delay: float) -> Record:
    if Fate.PENDING in fates and expired:
        fates = [Fate.EXPIRED if fate is Fate.PENDING else fate for fate in fates]
    if Fate.PENDING in fates:
        event = Event.HOLD if held else Event.DEFER
    else:
        event = Event.DELIVER if set(fates) <= {Fate.DELIVERED} else Event.FAIL
    plain = record(event, *fates, delay=delay)
    return plain._replace(settlement=plain.settlement._replace(counted=counted, ambiguous=not counted))


class Spools(RuleBasedStateMachine):
    """`known` are the queue ids that were accepted and not yet purged."""

    queue_ids = Bundle("queue_ids")

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._clock = ManualClock()
        self._disk = SqliteHome(Path(self._directory.name), self._clock)
        self._memory = MemoryHome(self._clock)
        self._known: dict[str, int] = {}
        self._mine: set[str] = set()  # claims that the process holds, as far as it knows
        self._number = 0

    @initialize()
    def open(self) -> None:
        self._run(self._disk.start())

    def teardown(self) -> None:
        self._run(self._disk.stop())
        self._loop.close()
        self._directory.cleanup()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    def _both(self, ask: Callable[[AnySpool], Coroutine[Any, Any, Any]]) -> Any:
        """Ask both: the same answer, or the same refusal."""
        answers = []
        for spool in (self._disk.spool, self._memory.spool):
            try:
                answers.append(self._run(ask(spool)))
            except (UnknownMessage, IllegalTransition, SpoolUnavailable) as error:
                told = type(error) if isinstance(error, SpoolUnavailable) else (type(error), str(error))
                answers.append(told)
        assert _plain(answers[0]) == _plain(answers[1])
        return answers[0]

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(
        target=queue_ids,
        recipients=st.integers(1, 3),
        large=st.booleans(),
        claimed=st.booleans(),
        lane=st.sampled_from(LANES),
        outcome=st.none() | OUTCOMES,
        max_age=st.sampled_from([60.0, 1000.0, 300_000.0]),
    )
    def put(self, recipients: int, large: bool, claimed: bool, lane: Lane, outcome: Any, max_age: float) -> str:
        self._number += 1
        queue_id = f"Q{self._number:05}"
        what = None if outcome is None else _record(outcome[0][:recipients], *outcome[1:])
        new = deposit(
            queue_id,
            recipients=recipients,
            body=LARGE if large else SMALL,
            credential=lane.credential,
            subaccount=lane.subaccount,
            claimed=claimed,
            record=what,
            max_age=max_age,
        )
        self._both(lambda spool: spool.put(new))
        self._known[queue_id] = recipients
        if claimed and what is None:
            self._mine.add(queue_id)
        self._clock.advance(0.001)  # no two fall due at once: their order is a part of the contract
        return queue_id

    @rule(queue_id=queue_ids)
    def put_once_more(self, queue_id: str) -> None:
        if queue_id in self._known:
            assert self._both(lambda spool: spool.put(deposit(queue_id))) is SpoolUnavailable

    @rule(limit=st.integers(1, 5), skip=st.sets(st.sampled_from(LANES)))
    def claim(self, limit: int, skip: set[Lane]) -> None:
        claimed = self._both(lambda spool: spool.claim(limit, skip=skip))
        self._mine |= {claim.message.queue_id for claim in claimed.claims}
        assert not {Lane.of(claim.assignment) for claim in claimed.claims} & skip

    @rule(queue_id=queue_ids, outcome=OUTCOMES, notice=st.booleans())
    def record(self, queue_id: str, outcome: Any, notice: bool) -> None:
        """An attempt ends: under its claim, or after it was lost; never one that was not begun."""
        if queue_id not in self._mine:
            return
        self._mine.discard(queue_id)
        what = _record(outcome[0][: self._known.get(queue_id, 0)], *outcome[1:])
        if notice and queue_id in self._known:
            self._number += 1
            notice_id = f"N{self._number:05}"
            what = what._replace(notice=deposit(notice_id))
            self._known[notice_id] = 1
        self._both(lambda spool: spool.record(queue_id, what))
        self._clock.advance(0.001)

    @rule(queue_id=queue_ids)
    def hold(self, queue_id: str) -> None:
        if queue_id in self._mine:
            self._mine.discard(queue_id)
            self._both(lambda spool: spool.hold(queue_id, "its identity has gone"))

    @rule(some=st.data())
    def give_back(self, some: st.DataObject) -> None:
        given = some.draw(st.sets(st.sampled_from(sorted(self._mine)))) if self._mine else set()
        self._mine -= given
        self._both(lambda spool: spool.give_back(given))

    @rule()
    def renew(self) -> None:
        self._both(lambda spool: spool.renew(self._mine))

    @rule(forgotten=st.booleans())
    def reclaim(self, forgotten: bool) -> None:
        """`forgotten`: the process no longer knows of its attempts, though one may still end."""
        self._both(lambda spool: spool.reclaim(() if forgotten else self._mine))

    @rule(queue_id=queue_ids, event=st.sampled_from(COMMANDS), lane=st.none() | st.sampled_from(LANES))
    def act(self, queue_id: str, event: Event, lane: Lane | None) -> None:
        promise = None if lane is None else Assignment("till", lane.credential, lane.subaccount)
        self._both(lambda spool: spool.act(queue_id, event, promise))
        self._clock.advance(0.001)

    @rule(blocked=st.sets(st.sampled_from(LANES)))
    def hold_over_age(self, blocked: set[Lane]) -> None:
        self._both(lambda spool: spool.hold_over_age(blocked))

    @rule(failed_for=st.floats(0, 500), ended_for=st.floats(0, 500))
    def purge(self, failed_for: float, ended_for: float) -> None:
        finished = {
            queue_id
            for queue_id in self._known
            if self._run(self._memory.spool.entry(queue_id)).state in (State.FAILED, State.DELIVERED, State.DELETED)
        }
        self._both(lambda spool: spool.purge(failed_for=failed_for, ended_for=ended_for))
        left = {entry.queue_id for entry in self._run(self._memory.spool.page(limit=10_000)).entries}
        for queue_id in finished - left:
            del self._known[queue_id]

    # -- what befalls it ----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 30.0, LEASE, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self._clock.advance(seconds)

    @rule(seconds=st.sampled_from([-1e8, -3600.0, 3600.0, 1e8]))
    def somebody_sets_the_clock(self, seconds: float) -> None:
        self._clock.jump(seconds)

    @rule(away=st.sampled_from([0.0, 10.0, 3600.0, -3600.0]))
    def crash(self, away: float) -> None:
        # Claims that were lost with the process end no more: their attempts died with it.
        self._mine.clear()
        self._clock.reboot(away)
        self._run(self._disk.crash())
        self._run(self._memory.crash())
        self._clock.advance(0.001)

    # -- what is always so --------------------------------------------------------------------------------------------

    @invariant()
    def they_agree_and_nobody_vanishes(self) -> None:
        if self._disk.lives:
            pages = [self._run(spool.page(limit=10_000)).entries for spool in (self._disk.spool, self._memory.spool)]
            details = [
                [self._run(spool.entry(queue_id)) for queue_id in self._known]
                for spool in (self._disk.spool, self._memory.spool)
            ]
            assert [_plain(entry) for entry in pages[0]] == [_plain(entry) for entry in pages[1]]
            assert [_plain(entry) for entry in details[0]] == [_plain(entry) for entry in details[1]]
            assert {entry.queue_id: len(entry.recipients) for entry in pages[0]} == self._known
            for entry in pages[0]:
                _check(entry)

    @invariant()
    def the_counts_that_are_kept_are_real(self) -> None:
        if self._disk.lives:
            counts = self._disk.counts()
            assert sum(counts.values()) == len(self._known)
            for spool in (self._disk.spool, self._memory.spool):
                assert dict(self._run(spool.stats()).messages) == counts

    @invariant()
    def content_is_there_for_as_long_as_it_is_needed(self) -> None:
        if self._disk.lives:
            for queue_id in self._known:
                state = self._run(self._memory.spool.entry(queue_id)).state
                kept = self._run(self._disk.spool.header(queue_id)) is not None
                assert kept == (state not in (State.DELIVERED, State.DELETED))
                if kept:
                    assert b"".join(self._run(self._disk.spool.content(queue_id)).chunks())


def _check(entry: Entry) -> None:
    """One state, and fates that fit it."""
    fates = {recipient.fate for recipient in entry.recipients}
    match entry.state:
        case State.DELIVERED:
            assert fates == {Fate.DELIVERED}
        case State.DELETED | State.FAILED:
            assert Fate.PENDING not in fates
    assert (entry.finished is None) == (entry.state in (State.QUEUED, State.ACTIVE, State.HELD))


def _plain(answer: Any) -> Any:
    """An answer without what may differ: where content lies, the last digits of a time, the order of a set."""
    if isinstance(answer, Claimed):
        claims = [
            (
                *(claim.message.queue_id, claim.message.envelope, claim.assignment, claim.pending, claim.attempts),
                *(round(claim.age_left, 4), claim.failed_before, b"".join(claim.message.content.chunks())),
            )
            for claim in answer.claims
        ]
        due = None if answer.next_due is None else round(answer.next_due, 4)
        return claims, answer.damaged, answer.lanes, due
    if isinstance(answer, Entry):
        times = {
            name: None if time is None else round(time, 2)
            for name, time in (("due", answer.due), ("finished", answer.finished))
        }
        history = [(line.number, line.outcome, line.reply, list(line.recipients)) for line in answer.history]
        return replace(answer, history=(), **times), history
    return sorted(answer) if isinstance(answer, list) else answer


TestSpools = Spools.TestCase
TestSpools.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
