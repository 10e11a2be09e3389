"""Who is this: from a session and its reverse-path to an identity, and what that identity yields.

Identities are rules in the order of the configuration. The first whose conditions all hold decides (design, section 4):

* A session that has proved a login and its password matches only the identities of that login. It never falls through
  to a rule without a login: a tenant's mail must not leave under the default's name because a rule was mistyped.
* A session without a login matches only rules without a login.
* A passthrough session presents an API key of its own; SparkPost has proved it. Rules without a login apply to it, and
  rules whose login is its normalised user name, but they give it a name, senders and limits, never a key or subaccount.
* Without any rule configured there is one, "default", which matches everything.

Conditions are compiled once into a test and the words for its failure, so an explanation costs nothing to keep.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from relay.config import Config, Identity, IPAddress
from relay.core import reply
from relay.core.envelope import Address, ReversePath
from relay.core.login import PASSTHROUGH, SUFFIX, Assignment, parse_subaccount
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.policy.patterns import LoginPattern, MailPattern
from relay.policy.rates import Rate
from relay.policy.wishes import NONE, Wishes


@dataclass(slots=True)
class Client:
    """A session as rules see it: where it came in, where from, and what it has proved.

    `address` is None for a Unix socket, where `uid` is known instead. `proved` names the identities whose login and
    password the session has proved. With `passthrough`, `login` is the normalised user name of its own API key.
    """

    listener: str
    address: IPAddress | None
    uid: int | None = None
    login: str | None = None
    proved: frozenset[str] = frozenset()
    passthrough: bool = False


@dataclass(frozen=True, slots=True)
class Considered:
    """What became of one rule: `failed` is the first condition that did not hold, in words; None if it matched."""

    identity: str
    failed: str | None

    def __str__(self) -> str:
        return f"{self.identity}: {self.failed or 'matches'}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whose mail a transaction is, and what its rule allows.

    `rate`: how much of it may come; None for as much as there is. `wishes`: what SparkPost is asked to do with it.
    """

    assignment: Assignment
    senders: tuple[MailPattern, ...]
    max_recipients: int
    rate: Rate | None = None
    wishes: Wishes = NONE


def sender_allowed(decision: Decision, address: Address) -> bool:
    """True if the identity may send as `address`; one that lists no senders may send as anybody."""
    return not decision.senders or any(pattern.matches(address) for pattern in decision.senders)


@dataclass(frozen=True, slots=True)
class _Condition:
    """One test of a rule, and what is the matter when it fails."""

    holds: Callable[[Client, ReversePath], bool]
    otherwise: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """One identity, compiled; `usual` is what it yields for all whose login says no more than that they are meant."""

    identity: Identity
    login: LoginPattern | None
    conditions: tuple[_Condition, ...]
    usual: Decision

    @classmethod
    def compile(cls, identity: Identity) -> Self:
        login = LoginPattern.compile(identity.match.login) if identity.match.login is not None else None
        conditions = (*_login_conditions(identity.name, login), *_other_conditions(identity))
        limits = identity.limits
        rate = Rate(limits.messages_per_minute, limits.messages_per_day)
        usual = Decision(
            Assignment(identity.name, identity.credential, identity.subaccount),
            tuple(map(MailPattern.compile, identity.senders)),
            limits.max_recipients,
            None if rate == Rate(None, None) else rate,
            Wishes.compile(identity.sparkpost),
        )
        return cls(identity, login, conditions, usual)

    def failure(self, client: Client, reverse_path: ReversePath) -> str | None:
        """The first condition that does not hold, in words; None if the rule matches."""
        for condition in self.conditions:
            if not condition.holds(client, reverse_path):
                return condition.otherwise
        return None

    def decide(self, client: Client) -> Decision:
        """Whose mail a matching session's is; a passthrough session keeps its own key and subaccount."""
        if client.passthrough:
            _, _, number = (client.login or "").partition(SUFFIX)
            assignment = Assignment(self.identity.name, PASSTHROUGH, parse_subaccount(number))
            return replace(self.usual, assignment=assignment)
        captured = self.login.subaccount(client.login) if self.login is not None and client.login is not None else None
        if not captured:
            return self.usual
        return replace(self.usual, assignment=self.usual.assignment._replace(subaccount=captured))


def _login_conditions(name: str, login: LoginPattern | None) -> Iterator[_Condition]:
    if login is None:
        yield _Condition(
            lambda client, _: client.login is None or client.passthrough,
            "the rule has no login, and the session has logged in",
        )
        return
    yield _Condition(lambda client, _: client.login is not None, f"login {login} is wanted, and nobody has logged in")
    yield _Condition(
        lambda client, _: client.login is not None and login.matches(client.login), f"the login is not {login}"
    )
    yield _Condition(lambda client, _: client.passthrough or name in client.proved, "its password has not been proved")


def _other_conditions(identity: Identity) -> Iterator[_Condition]:
    match = identity.match
    if (listener := match.listener) is not None:
        yield _Condition(lambda client, _: client.listener == listener, f"the listener is not {listener}")
    if (network := match.network) is not None:
        yield _Condition(
            lambda client, _: client.address is not None and client.address in network,
            f"the client's address is not in {network}",
        )
    if (uids := match.uid) is not None:
        yield _Condition(
            lambda client, _: client.uid in uids, f"the client's user id is not {' or '.join(map(str, uids))}"
        )
    if match.mail_from is not None:
        pattern = MailPattern.compile(match.mail_from)
        yield _Condition(lambda _, path: pattern.matches(path.address), f"the reverse-path is not {pattern}")


class Identities:
    """The rules of one configuration, in their order."""

    def __init__(self, identities: tuple[Identity, ...]) -> None:
        self._rules = tuple(map(_Rule.compile, identities))
        self._by_name = {rule.identity.name: rule for rule in reversed(self._rules)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(config.identities or (Identity(),))

    def consider(self, client: Client, reverse_path: ReversePath) -> tuple[Considered, ...]:
        """What becomes of each rule, in order, up to the first that matches; all of them when none does."""
        considered = []
        for rule in self._rules:
            considered.append(Considered(rule.identity.name, rule.failure(client, reverse_path)))
            if considered[-1].failed is None:
                break
        return tuple(considered)

    def choose(self, client: Client, reverse_path: ReversePath) -> Decision | Reply:
        """Whose mail this is, or the refusal to MAIL when no rule matches."""
        for rule in self._rules:
            if rule.failure(client, reverse_path) is None:
                return rule.decide(client)
        return reply.NO_IDENTITY

    def yields(self, assignment: Assignment) -> Assignment | None:
        """What the identity of a stored message yields for it now; None if there is no such identity any more.

        A subaccount that was captured from the application's login stays what it was.
        """
        rule = self._by_name.get(assignment.identity)
        if rule is None:
            return None
        now = rule.usual.assignment
        captures = rule.login is not None and rule.login.captures
        return now._replace(subaccount=assignment.subaccount) if captures else now

    def passwords(self, login: str) -> Mapping[str, Secret]:
        """The stored password, plain or hashed, of each identity that `login` can be meant for, by identity name."""
        return {
            rule.identity.name: rule.identity.password
            for rule in self._rules
            if rule.identity.password is not None and rule.login is not None and rule.login.matches(login)
        }
