"""Who gets a connection: pure choices, and a simulation that shows where they lead."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.login import Login, Target
from relay.core.secret import Secret
from relay.upstream.shares import TURN, Demand, Step, decide, entitlements

TARGET = Target("localhost", (587,))


def login(name: str, credential: str = "default") -> Login:
    return Login(TARGET, name, Secret(credential), credential)


A, B, C = login("A"), login("B"), login("C", "other")


@pytest.mark.parametrize(
    ("demands", "taken", "step"),
    [
        ([], 0, None),
        ([Demand(A, waiting=1)], 0, (Step.DIAL, A)),
        ([Demand(A, waiting=1, dialling=1)], 1, None),
        ([Demand(A, waiting=2, dialling=1)], 1, None),  # one at a time, until it has been let in
        ([Demand(A, waiting=2, dialling=1, proven=True)], 1, (Step.DIAL, A)),
        ([Demand(A, busy=1, queued=1, proven=True)], 1, (Step.DIAL, A)),  # ahead of need
        ([Demand(A, busy=1, queued=1, dialling=1, proven=True)], 2, None),
        ([Demand(A, busy=1, worn=1, proven=True)], 1, (Step.DIAL, A)),
        ([Demand(A, busy=1, worn=1, dialling=1, proven=True)], 2, None),
        ([Demand(A, busy=1, queued=1, worn=1)], 1, None),  # not when the last one was not let in
        ([Demand(A, busy=2, worn=2, proven=True)], 2, None),  # nor beyond what there may be
        ([Demand(A, busy=1)], 1, None),
        ([Demand(A, waiting=1, fresh=1, idle=1)], 1, (Step.DIAL, A)),
        ([Demand(A, waiting=1, fresh=1, idle=1, busy=1)], 2, (Step.CLOSE_IDLE, A)),  # one of its own for a new one
        ([Demand(A, waiting=1, fresh=1, busy=2)], 2, (Step.RETIRE, A)),
        ([Demand(A, waiting=1, fresh=1, busy=1, leaving=1)], 2, None),
        ([Demand(A, waiting=1, fresh=1, idle=1, leaving=1)], 2, (Step.CLOSE_IDLE, A)),  # that may take ten minutes
        ([Demand(A, waiting=1, fresh=1, idle=1, leaving=1, parting=1)], 2, None),  # and that a moment
        ([Demand(A, waiting=1, fresh=1, idle=1, may_dial=False, full=True)], 1, (Step.CLOSE_IDLE, A)),
        ([Demand(A, waiting=1, may_dial=False)], 0, None),
        ([Demand(A, waiting=1, may_dial=False), Demand(B, idle=1, busy=1)], 1, None),  # its time to dial will come
        ([Demand(A, waiting=1, may_dial=False, full=True), Demand(B, idle=1, busy=1)], 1, (Step.CLOSE_IDLE, B)),
        ([Demand(A, waiting=1), Demand(B, idle=1, busy=1)], 2, (Step.CLOSE_IDLE, B)),
        ([Demand(A, waiting=1), Demand(B, busy=2)], 2, (Step.RETIRE, B)),
        ([Demand(A, waiting=1), Demand(B, busy=1, leaving=1)], 2, None),  # one is on its way
        ([Demand(A, waiting=1, busy=1), Demand(B, waiting=1, busy=1)], 2, None),  # each has its share
    ],
)
def test_a_step(demands, taken, step):
    """A new connection where there may be one more, then somebody else's, for who has less than his share."""
    assert decide(demands, taken, 2) == step


def test_credentials_share_first_and_logins_second():
    """Two logins of one credential have together what the one of the other has."""
    shares = entitlements([Demand(one, waiting=1) for one in (A, B, C)], 10)

    assert shares == {A: 2.5, B: 2.5, C: 5.0}


def test_more_logins_than_connections_take_turns():
    """Who has none gets the one of somebody who has had his turn, and of nobody else."""
    poor = Demand(A, waiting=1)
    fresh = [Demand(login(f"x{n}"), waiting=1, busy=1) for n in range(2)]
    ripe = [Demand(one.login, waiting=1, busy=1, ripe=1) for one in fresh[:1]]

    assert decide([poor, *fresh], 2, 2) is None
    assert decide([poor, *ripe, fresh[1]], 2, 2) == (Step.RETIRE, fresh[0].login)


class Model:
    """A pool without a network: every busy session finishes its message in each round."""

    def __init__(self, limit: int, backlog: dict[Login, int]) -> None:
        self.limit = limit
        self.backlog = dict(backlog)
        self.sessions: list[list] = []  # login, busy, retiring, carried
        self.dialling: list[Login] = []
        self.proven: set[Login] = set()
        self.carried = dict.fromkeys(backlog, 0)

    def demand(self, one: Login) -> Demand:
        mine = [session for session in self.sessions if session[0] == one]
        busy = [session for session in mine if session[1] and not session[2]]
        return Demand(
            one,
            waiting=self.backlog[one],
            idle=sum(not session[1] and not session[2] for session in mine),
            busy=len(busy),
            leaving=sum(session[2] for session in mine),
            ripe=sum(session[3] >= TURN for session in busy),
            dialling=self.dialling.count(one),
            proven=one in self.proven,
        )

    def settle(self) -> None:
        for session in self.sessions:
            if self.backlog[session[0]] and not (session[1] or session[2]):
                session[1] = True
                self.backlog[session[0]] -= 1
        for _ in range(1000):
            taken = len(self.sessions) + len(self.dialling)
            assert taken <= self.limit
            step = decide([self.demand(one) for one in self.backlog], taken, self.limit)
            if step is None:
                return
            kind, one = step
            mine = [session for session in self.sessions if session[0] == one and not session[2]]
            match kind:
                case Step.DIAL:
                    self.dialling.append(one)
                case Step.CLOSE_IDLE:
                    self.sessions.remove(next(session for session in mine if not session[1]))
                case Step.RETIRE:
                    next(session for session in mine if session[1])[2] = True
        raise AssertionError("it never comes to rest")

    def round(self) -> None:
        self.settle()
        for session in list(self.sessions):
            if session[1]:
                session[1], session[3] = False, session[3] + 1
                self.carried[session[0]] += 1
                if session[2]:
                    self.sessions.remove(session)
        self.proven.update(self.dialling)
        self.sessions += [[one, False, False, 0] for one in self.dialling]
        self.dialling.clear()


def test_five_credentials_share_ten_connections():
    """Whoever came first: within a fifth of equal."""
    logins = [login(f"SMTP_Injection{n}", f"credential{n}") for n in range(5)]
    model = Model(10, {logins[0]: 100_000})
    for _ in range(10):
        model.round()
    model.backlog |= dict.fromkeys(logins, 100_000)
    model.carried = dict.fromkeys(logins, 0)
    for _ in range(300):
        model.round()

    assert max(model.carried.values()) <= 1.2 * min(model.carried.values())


@settings(max_examples=30)
@given(
    backlog=st.dictionaries(st.integers(0, 12), st.integers(0, 60), min_size=1),
    limit=st.integers(1, 10),
)
def test_everybody_is_served(backlog, limit):
    """Whatever waits and however few connections there are, it comes to rest in each round, and all of it is sent."""
    model = Model(limit, {login(f"L{n}", f"c{n % 3}"): count for n, count in backlog.items()})
    total = sum(backlog.values())
    for _ in range(20 + 40 * math.ceil(total / limit) + 20 * len(backlog)):
        model.round()

    assert sum(model.carried.values()) == total
