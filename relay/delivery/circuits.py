"""What is known to be closed: ways to SparkPost, refused logins, plans over their quota. Pure but for its clock.

A circuit that is open holds back mail, so that nobody tries in vain what cannot work, and no other mail suffers. The
words go crosswise: while a circuit is open, the way it guards is closed.

    circuit      opened by                                            closed by
    target       a dial in which no port worked                       a dial in which one did (probes do nothing else)
    login        a 5yz to AUTH, "relaying denied" and the like        a login that succeeds, at most one try a minute
                 a 4yz to AUTH, a hang-up at it                       time: 5 s, doubled up to 1 min; or success
    credential   its bare login refused, or three logins of it        any of its logins that succeeds
                 "Exceed Sending Limit"                               time: 15 min, doubled up to 1 h; or a delivery

Where no port of a target works, HTTPS may be a way round its circuit (`last_resort`), and round no other. A login that
HTTPS answers 401 is refused as by a 535.

One key may have many logins, one for each subaccount; the *bare* login, without a subaccount, stands for the key. Once
a login of it has worked, those that had been refused by then are known to be refused for reasons of their own, and
count against the key no more. A login that is held back only with its key takes its turn in the probes: it may be the
one that works.

A key that changes makes another login of it, for which nothing is known: that closes its circuits at once. A key that
the application itself presents (passthrough) is its own business and opens no circuit but the target's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from relay.core.login import PASSTHROUGH, Login, Target, bare
from relay.core.outcome import Answer, Cause, Delivered, Fact, Failure, FailureKind, Outcome, Phase, classify
from relay.delivery.last_resort import LastResort
from relay.delivery.pauses import Pause, Pauses
from relay.observe import log as events

log = structlog.get_logger()

LOGIN_PROBE: Final = 60.0  # seconds between logins with a key that was refused
CREDENTIAL_AFTER: Final = 3  # refused logins
BUSY_FIRST, BUSY_LONGEST = 5.0, 60.0  # seconds: a 4yz greeting, a 4yz to AUTH
QUOTA_FIRST, QUOTA_LONGEST = 900.0, 3600.0  # seconds: fact sheet 4.1, the limit is over a rolling window
TARGET_PROBE: Final = 2.0  # seconds between probes of a target

_LONG_AGO: Final = float("-inf")
# What happens in these says nothing of whether SMTP takes a login: HTTPS has a permission of its own.
_WITHOUT_LOGIN: Final = frozenset(
    {Phase.RESOLVE, Phase.CONNECT, Phase.BANNER, Phase.EHLO, Phase.STARTTLS, Phase.TLS, Phase.AUTH}
    | {Phase.REQUEST, Phase.RESPONSE}
)


class Circuits:
    """All circuits of one relay. `now` is a monotonic clock; `on_change` is called when one opens or closes.

    `last_resort`: what is known of HTTPS, where it may be used. An attempt whose login is not `current` any more at its
    end opens nothing: its key has been changed meanwhile, and nobody will use it again.
    """

    def __init__(
        self,
        now: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
        last_resort: LastResort | None = None,
        current: Callable[[Login], bool] = lambda _: True,
    ) -> None:
        self._now = now
        self._on_change = on_change
        self._last_resort = last_resort or LastResort(lambda _: None, now)
        self._current = current
        self._targets: dict[Target, Pause] = {}
        self._gone_round: set[Target] = set()  # mail goes by HTTPS instead
        self._refused: dict[Login, Outcome] = {}
        self._against: dict[Login, dict[Login, None]] = {}  # by bare login: the refused ones that speak against the key
        self._suspected: dict[Login, None] = {}  # asked for, and held back only with their key; in that order
        self._tried: dict[Login, float] = {}  # when a login that was refused or suspected had its last turn
        self._key_tried: dict[Login, float] = {}  # by bare login: when any login of the key had it
        self._busy: Pauses[Login] = Pauses(now, BUSY_FIRST, BUSY_LONGEST)
        self._over_quota: Pauses[Login] = Pauses(now, QUOTA_FIRST, QUOTA_LONGEST)  # by bare login

    # -- asking -------------------------------------------------------------------------------------------------------

    def blocked(self, login: Login) -> Outcome | None:
        """What holds mail of this login back; None if nothing is known to. Who asks in vain joins the probes."""
        if self.all_open:
            return None
        if (down := self._targets.get(login.target)) is not None and not self.by_https(login):
            return down.outcome
        if login.credential == PASSTHROUGH:
            return None
        if login not in self._refused and self._refusal_of_key(login) is not None:
            self._suspected.setdefault(login)
        return self._held_back(login)

    def by_https(self, login: Login) -> bool:
        """Does mail of this login go by HTTPS now? While no port works for it, and HTTPS is a way for it.

        A target that greets with "not now" is there: that is no reason to go round it.
        """
        down = self._targets.get(login.target)
        return down is not None and not _says_not_now(down.outcome.fact) and self._last_resort.serves(login)

    @property
    def all_open(self) -> bool:
        """True if nothing can be held back, and no port is blocked."""
        return not (self._targets or self._refused or self._busy.begun or self._over_quota.begun)

    def _held_back(self, login: Login) -> Outcome | None:
        refusal = self._refused.get(login) or self._refusal_of_key(login)
        if refusal is not None:
            return refusal
        return self._busy.reason(login) or self._over_quota.reason(bare(login))

    def _refusal_of_key(self, login: Login) -> Outcome | None:
        """What speaks against the key itself: a refusal of its bare login, or of enough others."""
        key = bare(login)
        against = self._against.get(key, {})
        if key in against:
            return self._refused[key]
        return self._refused[next(iter(against))] if len(against) >= CREDENTIAL_AFTER else None

    def next_change(self) -> float | None:
        """In how many seconds a circuit that only time closes will be closed."""
        ends = (self._busy.next_end(), self._over_quota.next_end(), self._last_resort.next_change())
        return min((end for end in ends if end is not None), default=None)

    @property
    def targets_down(self) -> dict[Target, Outcome]:
        return {target: pause.outcome for target, pause in self._targets.items()}

    @property
    def logins_refused(self) -> dict[Login, Outcome]:
        return dict(self._refused)

    # -- learning -----------------------------------------------------------------------------------------------------

    def target_down(self, target: Target, fact: Fact) -> None:
        """No port of it works. Many dials may find that at once; only probes make the wait longer."""
        outcome, known = classify(fact), self._targets.get(target)
        if known is not None and _says_not_now(known.outcome.fact) == _says_not_now(fact):
            self._targets[target] = replace(known, outcome=outcome)
            return
        wait = BUSY_FIRST if _says_not_now(fact) else TARGET_PROBE
        self._targets[target] = Pause(outcome, self._now() + wait, wait)
        if known is None:
            log.error(events.UPSTREAM_DOWN, host=target.host, reason=str(fact))
            self._on_change()

    def goes_round(self, target: Target) -> Outcome | None:
        """Mail goes by HTTPS instead. Why, the first time in an outage; then None, as it is known."""
        down = self._targets.get(target)
        if down is None or target in self._gone_round:
            return None
        self._gone_round.add(target)
        return down.outcome

    def target_up(self, target: Target, port: int) -> None:
        self._gone_round.discard(target)
        if self._targets.pop(target, None) is not None:
            log.warning(events.UPSTREAM_UP, host=target.host, port=port)
            self._on_change()

    def learn(self, login: Login, outcomes: Sequence[Outcome]) -> None:
        """What an attempt or a probe under this login has told about it.

        An attempt may have had several transactions, and it ends with the one that went wrong: so what is good news is
        taken in first. It is none while the login is held back, for what succeeds now had logged in before.
        """
        if login.credential == PASSTHROUGH:
            return
        if self.all_open and not self._against and all(isinstance(outcome, Delivered) for outcome in outcomes):
            return  # the common case: nothing to be closed, nothing to be opened
        if self._held_back(login) is None:
            if any(isinstance(outcome, Delivered) for outcome in outcomes):
                self._over_quota.end(bare(login))
            if any(map(_shows_login, outcomes)):
                self.login_works(login)
        if not self._current(login):
            return
        for outcome in outcomes:
            if outcome.cause is Cause.LOGIN_REFUSED:
                self._refuse(login, outcome)
            elif outcome.cause is Cause.QUOTA:
                self._pause(self._over_quota, bare(login), outcome)
            elif self._broke_at_login(login, outcome):
                self._pause(self._busy, login, outcome)

    def _broke_at_login(self, login: Login, outcome: Outcome) -> bool:
        """The port works, and logging in did not: a 4yz, a hang-up. Waiting in vain for a turn is none."""
        fact = outcome.fact
        late = isinstance(fact, Failure) and fact.kind is FailureKind.DEADLINE
        return fact.phase in (Phase.EHLO, Phase.AUTH) and not late and login.target not in self._targets

    def login_works(self, login: Login) -> None:
        """SparkPost has accepted it: so its key is good, whatever was said of other logins under it."""
        busy = self._busy.end(login)
        restored = self._refused.pop(login, None) is not None
        suspicion = self._against.pop(bare(login), None) is not None
        if suspicion:
            for one in [one for one in self._suspected if bare(one) == bare(login)]:
                del self._suspected[one]
        if restored:
            log.warning(events.CREDENTIAL_RESTORED, credential=login.credential, username=login.username)
        if restored or suspicion or busy:
            self._on_change()

    def _refuse(self, login: Login, outcome: Outcome) -> None:
        self._suspected.pop(login, None)
        self._took_turn(login)
        known = login in self._refused
        self._refused[login] = outcome
        if not known:
            self._against.setdefault(bare(login), {})[login] = None
            log.error(
                events.CREDENTIAL_REFUSED,
                credential=login.credential,
                username=login.username,
                reply=str(outcome.fact),
            )
            self._on_change()

    def _pause(self, pauses: Pauses[Login], login: Login, outcome: Outcome) -> None:
        if pauses.begin(login, outcome):
            self._on_change()

    # -- probing ------------------------------------------------------------------------------------------------------

    def targets_to_probe(self) -> list[Target]:
        """Those whose turn it is. One that says "not now" is left alone for longer after each probe."""
        now = self._now()
        due = [target for target, pause in self._targets.items() if pause.again <= now]
        for target in due:
            pause = self._targets[target]
            wait = min(pause.wait * 2, BUSY_LONGEST if _says_not_now(pause.outcome.fact) else TARGET_PROBE)
            self._targets[target] = replace(pause, again=now + wait, wait=wait)
        return due

    def logins_to_probe(self) -> list[Login]:
        """Those whose turn it is: of each key the one that has waited longest, and never more than one a minute."""
        now = self._now()
        turns: dict[Login, Login] = {}
        for login in (*self._suspected, *self._refused):
            key = bare(login)
            unreached = login.target in self._targets and not self.by_https(login)
            if unreached or self._key_tried.get(key, _LONG_AGO) + LOGIN_PROBE > now:
                continue
            rival = turns.setdefault(key, login)
            if self._tried.get(login, _LONG_AGO) < self._tried.get(rival, _LONG_AGO):
                turns[key] = login
        for login in turns.values():
            self._took_turn(login)
        return list(turns.values())

    def _took_turn(self, login: Login) -> None:
        self._tried[login] = self._key_tried[bare(login)] = self._now()

    def forget(self, current: Callable[[Login], bool]) -> None:
        """Drop what is known of logins that nobody uses any more: their key has changed, or they are not configured."""
        changed = [one.forget(current) for one in (self._busy, self._over_quota, self._last_resort)]
        books: tuple[dict[Login, Any], ...] = (self._refused, self._against, self._suspected)
        for book in (*books, self._tried, self._key_tried):
            for login in [one for one in book if not current(one)]:
                del book[login]
                changed.append(True)
        if any(changed):
            self._on_change()


def _shows_login(outcome: Outcome) -> bool:
    """It was decided behind a login that had succeeded."""
    return outcome.fact.phase not in _WITHOUT_LOGIN and outcome.cause is not Cause.LOGIN_REFUSED


def _says_not_now(fact: Fact) -> bool:
    """A greeting of 4yz: the service is there, and wants to be left alone."""
    return isinstance(fact, Answer) and fact.phase is Phase.BANNER and fact.reply.transient
