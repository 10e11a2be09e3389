"""What a stored promise means today: names that stand with a message, looked up anew (design, section 1, rule 4)."""

from typing import Self

from relay.config import Config
from relay.core.login import Assignment, Login, Terms
from relay.core.ports import Bearer
from relay.core.spooled import Lane
from relay.policy.credentials import Credentials
from relay.policy.identity import Identities


class PolicyResolver:
    """A Resolver over the identities and credentials of the configuration."""

    def __init__(self, identities: Identities, credentials: Credentials, terms: dict[str, Terms], usual: Terms) -> None:
        """`terms` by identity; `usual` for one that is not configured."""
        self._identities = identities
        self._credentials = credentials
        self._terms = terms
        self._usual = usual

    @classmethod
    def from_config(cls, config: Config, identities: Identities, credentials: Credentials) -> Self:
        general = config.delivery
        terms = {
            one.name: Terms(
                queue=one.delivery == "queue",
                deadline=one.cut_through_deadline or general.cut_through_deadline,
                max_age=one.max_age or general.max_age,
            )
            for one in config.identities
        }
        return cls(identities, credentials, terms, Terms(False, general.cut_through_deadline, general.max_age))

    def terms_of(self, identity: str) -> Terms:
        return self._terms.get(identity, self._usual)

    def resolve(self, assignment: Assignment) -> Bearer | str:
        login = self._credentials.login_of(assignment.credential, assignment.subaccount)
        if login is not None and self._identities.yields(assignment) == assignment:
            return Bearer(assignment, login, self.terms_of(assignment.identity))
        yielded = self.renew(assignment)
        if isinstance(yielded, str):
            return yielded
        return (
            f"identity {assignment.identity} sends as {_named(yielded)} now, and this message was accepted for"
            f" {_named(assignment)}: queue release sends it under the new mapping"
        )

    def renew(self, assignment: Assignment) -> Assignment | str:
        yielded = self._identities.yields(assignment)
        if yielded is None:
            return f"there is no identity {assignment.identity} any more: configure it, then queue release"
        if self._credentials.login_of(yielded.credential, None) is None:
            return f"there is no credential {yielded.credential} any more: configure it, then queue release"
        return yielded

    def login_of(self, lane: Lane) -> Login | None:
        return self._credentials.login_of(lane.credential, lane.subaccount)


def _named(assignment: Assignment) -> str:
    account = "the primary account" if assignment.subaccount is None else f"subaccount {assignment.subaccount}"
    return f"{account} of credential {assignment.credential}"
