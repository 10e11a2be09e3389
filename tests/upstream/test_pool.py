"""Sessions: of one login, under one cap, first come first served, and no slot is ever lost."""

import asyncio

import pytest

from relay.core.login import Endpoint, Login, Target
from relay.core.outcome import Answer, Failure, FailureKind, Phase
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.upstream.failure import UpstreamFailure
from relay.upstream.pool import Pool, PoolLimits

TARGET = Target("localhost", (587,))
A, B = (Login(TARGET, name, Secret("key"), "default") for name in ("A", "B"))


class FakeSession:
    """What the pool knows of a session."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.endpoint = Endpoint("smtp.test", 587, "192.0.2.1")
        self.messages = 0
        self.usable = True
        self.takes_more = False
        self.pushed_back = False
        self.suspect = False
        self.closed = False
        self.ends_after: int | None = None
        self.gone = asyncio.Event()

    def end_after(self, messages: int) -> None:
        self.ends_after = messages

    async def quit(self) -> None:
        await asyncio.sleep(0)
        self.abort()

    def abort(self) -> None:
        self.usable = False
        self.closed = True
        self.gone.set()


class Opener:
    """Opens fake sessions, or fails as told."""

    def __init__(self) -> None:
        self.opened: list[FakeSession] = []
        self.failure: UpstreamFailure | None = None
        self.failures: dict[Login, UpstreamFailure] = {}
        self.tried: list[Login] = []

    async def __call__(self, login, deadline, slots):
        self.tried.append(login)
        await asyncio.sleep(0)
        if login in self.failures:
            raise self.failures[login]
        if self.failure is not None:
            raise self.failure
        self.opened.append(FakeSession(login))
        return self.opened[-1]


@pytest.fixture
def opener():
    return Opener()


def pool_of(opener: Opener, *, connections: int = 2, messages: int = 100, idle: float = 50.0) -> Pool:
    return Pool(opener, PoolLimits(connections, messages, idle))


async def test_a_session_is_reused_by_its_own_login_only(opener):
    """The same login gets it back; another gets its own."""
    pool = pool_of(opener)
    first, fresh = await pool.acquire(A, 1)
    pool.release(first)
    again, used = await pool.acquire(A, 1)
    other, _ = await pool.acquire(B, 1)

    assert (first is again, fresh, used) == (True, False, True)
    assert other.login == B
    await pool.close()


async def test_a_session_that_nobody_has_used_may_have_died_as_well(opener):
    """It was dialled for somebody who has gone, and has rested since."""
    pool = pool_of(opener)
    gone = asyncio.create_task(pool.acquire(A, 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    for _ in range(5):  # until it is there
        await asyncio.sleep(0)
    session, there_before = await pool.acquire(A, 1)

    assert opener.opened == [session]
    assert there_before
    await pool.close()


async def test_a_session_retires_at_its_limit(opener):
    """After so many messages it says QUIT and its slot is free."""
    pool = pool_of(opener, connections=1, messages=1)
    session, _ = await pool.acquire(A, 1)
    session.messages = 1
    pool.release(session)
    other, _ = await pool.acquire(A, 1)

    assert session.closed
    assert other is not session
    await pool.close()


async def test_an_idle_session_gives_way_to_another_login(opener):
    """At the cap, who waits gets the slot of who is idle."""
    pool = pool_of(opener, connections=1)
    session, _ = await pool.acquire(A, 1)
    pool.release(session)
    other, _ = await pool.acquire(B, 1)

    assert session.closed
    assert other.login == B
    await pool.close()


async def test_who_waits_is_served_in_order(opener):
    """First come, first served, and never more than the cap."""
    pool = pool_of(opener, connections=1)
    held, _ = await pool.acquire(A, 1)
    order = []

    async def want(login):
        session, _ = await pool.acquire(login, 5)
        order.append(login)
        pool.release(session)

    tasks = [asyncio.create_task(want(login)) for login in (B, A, B)]
    await asyncio.sleep(0)
    pool.release(held)
    await asyncio.gather(*tasks)

    assert order == [A, B, B]
    assert sum(not session.closed for session in opener.opened) <= 1
    await pool.close()


async def test_a_waiter_that_gives_up_leaves_no_trace(opener):
    """Time runs out for one; the next still gets the slot."""
    pool = pool_of(opener, connections=1)
    held, _ = await pool.acquire(A, 1)
    with pytest.raises(UpstreamFailure) as late:
        await pool.acquire(B, 0.01)
    pool.release(held)
    session, _ = await pool.acquire(B, 1)

    assert late.value.fact.kind is FailureKind.DEADLINE
    assert "all connections are busy" in str(late.value)
    assert session.login == B
    await pool.close()


async def test_a_failed_dial_frees_its_slot(opener):
    """However often."""
    pool = pool_of(opener, connections=1)
    opener.failure = UpstreamFailure(Failure(Phase.CONNECT, FailureKind.REFUSED, "connection refused"))
    for _ in range(3):
        with pytest.raises(UpstreamFailure):
            await pool.acquire(A, 1)
    opener.failure = None

    assert (await pool.acquire(A, 1))[0].login == A
    await pool.close()


async def test_a_slow_login_is_called_that_and_frees_its_slot():
    """Somebody who waited for SparkPost is not told that the connections were busy."""

    async def never(login, deadline, slots):
        await asyncio.get_running_loop().create_future()

    pool = Pool(never, PoolLimits(1, 100, 50))
    for _ in range(2):
        with pytest.raises(UpstreamFailure) as slow:
            await pool.acquire(A, 0.01)

        assert (slow.value.fact.phase, slow.value.fact.kind) == (Phase.AUTH, FailureKind.DEADLINE)
        assert "too slow to log in" in str(slow.value)
    await pool.close()


async def test_a_cancelled_acquire_frees_its_slot(opener):
    """Cancelled at each of its steps."""
    pool = pool_of(opener, connections=1)
    for steps in range(4):
        task = asyncio.create_task(pool.acquire(A, 1))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            session, _ = await task
        except asyncio.CancelledError:
            continue
        pool.release(session)

    assert (await pool.acquire(B, 1))[0].login == B
    await pool.close()


async def test_an_idle_session_is_closed_in_time(opener):
    """Before SparkPost drops it."""
    pool = pool_of(opener, idle=0.01)
    session, _ = await pool.acquire(A, 1)
    pool.release(session)
    async with asyncio.timeout(2):
        await session.gone.wait()

    assert (await pool.acquire(A, 1))[0] is not session
    await pool.close()


async def test_spare_slots_are_counted(opener):
    """A racing dial beside another takes a slot of its own, or gets none."""
    pool = pool_of(opener, connections=2)
    session, _ = await pool.acquire(A, 1)

    assert pool.take()
    assert not pool.take()
    pool.give()
    pool.release(session)
    await pool.close()


async def test_sessions_are_counted_by_credential_endpoint_and_state(opener):
    """Busy while somebody has it, idle when it is given back, gone when it is closed."""
    pool = pool_of(opener)
    first, _ = await pool.acquire(A, 1)
    second, _ = await pool.acquire(B, 1)
    pool.release(second)
    during = pool.sessions
    first.usable = False
    pool.release(first)
    after = pool.sessions

    assert during == {("default", "smtp.test:587", "busy"): 1, ("default", "smtp.test:587", "idle"): 1}
    assert after == {("default", "smtp.test:587", "idle"): 1}
    await pool.close()
    assert pool.sessions == {}


async def test_who_waits_for_a_refused_login_does_not_try_it_himself(opener):
    """One login is refused once; another login that waits gets its turn."""
    pool = pool_of(opener, connections=1)
    held, _ = await pool.acquire(B, 1)
    refusal = Answer(Phase.AUTH, Reply.parse(535, ["5.7.8 Sorry."]))
    opener.failures[A] = UpstreamFailure(refusal)
    waiting = [asyncio.create_task(pool.acquire(A, 5)) for _ in range(5)]
    other = asyncio.create_task(pool.acquire(B, 5, fresh=True))
    await asyncio.sleep(0)
    held.usable = False
    pool.release(held)
    refused = await asyncio.gather(*waiting, return_exceptions=True)
    session, _ = await other

    assert [error.fact for error in refused] == [refusal] * 5
    assert opener.tried.count(A) == 1
    assert session.login == B
    await pool.close()


async def test_one_new_session_is_enough_for_all_who_want_one(opener):
    """It shows that the login is let in: who has waited for one since before takes what there is."""
    pool = pool_of(opener, connections=1)
    dead, _ = await pool.acquire(A, 1)
    waiting = [asyncio.create_task(pool.acquire(A, 1, fresh=True)) for _ in range(3)]
    await asyncio.sleep(0)
    dead.usable = False
    pool.release(dead)
    for task in waiting:
        session, _ = await task
        assert session is not dead
        pool.release(session)

    assert len(opener.opened) == 2
    await pool.close()


@pytest.mark.parametrize("busy", [True, False])
async def test_who_wants_a_new_session_where_there_may_be_no_more_gives_one_for_it(opener, busy):
    """An idle one, else a busy one when it has carried what is on it."""
    pool = pool_of(opener, connections=2)
    held = [(await pool.acquire(A, 1))[0] for _ in range(2)]
    if not busy:
        pool.release(held[0])
    task = asyncio.create_task(pool.acquire(A, 1, fresh=True))
    await asyncio.sleep(0)
    if busy:
        (left,) = (one for one in held if one.ends_after == 1)
        pool.release(left)

    assert (await task)[0] not in held
    assert sum(not session.closed for session in opener.opened) == 2
    await pool.close()


async def work(pool: Pool, messages: int) -> None:
    """So many messages, one after the other."""
    for _ in range(messages):
        session, _ = await pool.acquire(A, 1)
        pool.release(session)
        for _ in range(5):
            await asyncio.sleep(0)  # a dial that was begun comes to its end


async def test_a_successor_is_ready_before_a_session_is_worn_out(opener):
    """It is dialled while the old one still has messages to go, and nobody waits for it."""
    pool = pool_of(opener, messages=20)
    await work(pool, 10)
    assert len(opener.opened) == 1
    await work(pool, 1)

    assert len(opener.opened) == 2
    assert not opener.opened[0].closed
    await work(pool, 9)
    assert len(opener.opened) == 2  # one is enough
    await pool.close()


async def test_a_successor_that_is_not_let_in_is_not_tried_again_ahead_of_need(opener):
    """The session that there is goes on to its end; then a message asks for another."""
    pool = pool_of(opener, messages=20)
    await work(pool, 1)
    opener.failures[A] = UpstreamFailure(Answer(Phase.AUTH, Reply.parse(535, ["5.7.8 Sorry."])))
    await work(pool, 19)
    await opener.opened[0].gone.wait()
    with pytest.raises(UpstreamFailure):
        await pool.acquire(A, 1)

    assert len(opener.tried) == 3
    await pool.close()


async def test_sessions_made_together_end_apart(opener):
    """Each is told after how many messages it says goodbye."""
    pool = pool_of(opener, connections=4, messages=80)
    held = [(await pool.acquire(A, 1))[0] for _ in range(4)]

    # Each has one less to go when the next is made.
    assert sorted(session.ends_after for session in held) == [62, 68, 74, 80]
    await pool.close()


async def test_a_session_whose_key_was_changed_while_it_was_dialled(opener):
    """It carries what waits for it, and no more."""
    pool = Pool(opener, PoolLimits(1, 100, 50.0), current=lambda login: login == B)
    session, _ = await pool.acquire(A, 1)
    pool.release(session)
    other, _ = await pool.acquire(B, 1)
    pool.release(other)

    assert (session.ends_after, other.ends_after) == (1, 100)
    assert (session.closed, other.closed) == (True, False)
    await pool.close()


async def test_each_session_rests_for_its_own_time(opener):
    """The one that was used later goes later."""
    pool = pool_of(opener, idle=0.05)
    first, second = [(await pool.acquire(A, 1))[0] for _ in range(2)]
    pool.release(first)
    await asyncio.sleep(0)
    pool.release(second)
    async with asyncio.timeout(2):
        await first.gone.wait()
        await second.gone.wait()

    assert pool.sessions == {}
    await pool.close()


async def test_who_comes_while_a_dial_is_under_way_has_another_when_it_fails():
    """One that was begun ahead of need is reset together with the session: that says nothing of the login."""
    begun, reset, sessions = asyncio.Event(), asyncio.Event(), []

    async def opener(login, deadline, slots):
        sessions.append(FakeSession(login))
        if len(sessions) == 2:
            begun.set()
            await reset.wait()
            raise UpstreamFailure(Failure(Phase.EHLO, FailureKind.LOST, "closed at EHLO"))
        return sessions[-1]

    pool = Pool(opener, PoolLimits(2, 20, 50.0))
    await work(pool, 11)
    await begun.wait()
    session, _ = await pool.acquire(A, 1)
    session.usable = False
    pool.release(session)
    waiting = asyncio.create_task(pool.acquire(A, 1, fresh=True))
    await asyncio.sleep(0)
    reset.set()

    assert (await waiting)[0] is sessions[2]
    await pool.close()
