"""What SparkPost is asked to do with a message: what its identity always asks for, and what the application may.

An application asks with an X-MSYS-API header of its own. So does whoever can smuggle a header into its mail: for a
thousand blind copies, for another pool of IP addresses (fact sheet 2.3). Hence an identity says what may be asked for.
What may not be is refused and not taken out: mail without the copies that it asks for is not the mail that was sent.

What the application says goes before what the identity says, field by field; metadata are laid over the identity's, and
tags are added to them. The header that leaves is always written anew, the only one of its message: two readers may
disagree about JSON with a name in it twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from relay.config import SparkPostOptions
from relay.core import headers, reply, smtp_api
from relay.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Wishes:
    """`own`: what the identity asks for, as JSON has it; `accept`: what applications may, as the configuration has it.

    `field` is the header field of mail whose application asks for nothing, empty where the identity does not either.
    """

    own: Mapping[str, Any]
    accept: frozenset[str]
    field: bytes

    @classmethod
    def compile(cls, options: SparkPostOptions) -> Self:
        given = options.model_dump(exclude={"accept"})
        own = {name: given[name] for name in smtp_api.FIELDS if given.get(name)}
        switches = {name: given[name] for name in smtp_api.OPTIONS if given.get(name) is not None}
        if switches:
            own["options"] = switches
        return cls(own, frozenset(options.accept), smtp_api.field(own) if own else b"")


NONE = Wishes.compile(SparkPostOptions())


def asked_for(wishes: Wishes, identity: str, header: bytes) -> bytes | Reply:
    """The X-MSYS-API field that a message is to have, empty for none; or the refusal of what its header asks for."""
    names = headers.said_to_sparkpost(header)
    if not names:
        return wishes.field
    for spelled in names:
        name = spelled.decode("latin-1")
        binding = name.lower() == smtp_api.BINDING.lower() and smtp_api.BINDING in wishes.accept
        if spelled.upper() != smtp_api.NAME and not binding:
            return reply.not_to_be_asked(name, identity)
    values = headers.field_values(header, smtp_api.NAME)
    if len(values) > 1:
        return reply.smtp_api_unusable("the message has several X-MSYS-API headers")
    if not values:
        return wishes.field
    try:
        asked = smtp_api.read(values[0])
        for wish in _names(asked):
            if wish not in wishes.accept:
                return reply.not_to_be_asked(f"{wish} in X-MSYS-API", identity)
        return smtp_api.field(_merged(wishes.own, asked))
    except smtp_api.SmtpApiError as error:
        return reply.smtp_api_unusable(str(error))


def _names(asked: Mapping[str, Any]) -> list[str]:
    """What is asked for, as `accept` calls it. An empty list of copies asks for nothing."""
    fields = [name for name in asked if name != "options" and (asked[name] or name not in smtp_api.COPIES)]
    return fields + [f"options.{name}" for name in asked.get("options", {})]


def _merged(own: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**own, **asked}
    for name in ("metadata", "options"):
        if name in own and name in asked:
            merged[name] = {**own[name], **asked[name]}
    if "tags" in own and "tags" in asked:
        merged["tags"] = [*own["tags"], *(tag for tag in asked["tags"] if tag not in own["tags"])]
    return merged
