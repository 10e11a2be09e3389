"""Content in pieces (`content.text`, `content.html` and what goes with them), made into the message that it asks for.

The email package makes it, as it sees fit. There are no templates here: what SparkPost would evaluate is refused. All
recipients get one message, in whose To stand those who would each stand in their own.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formataddr, formatdate, getaddresses, make_msgid, parseaddr
from typing import Any, Final

from relay.sandbox.paths import is_address

FIELDS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("subject", "text", "html", "reply_to"), str),
    "headers": dict,
    "attachments": list,
}
_BUILT = re.compile(r"from|to|subject|reply-to|mime-version|content-.*", re.IGNORECASE)  # not to be had by headers
_NAME = re.compile(r"[!-9;-~]+")


def build(content: Mapping[str, Any], recipients: Iterable[Mapping[str, Any]], *, templates: bool) -> bytes:
    """The message; raises ValueError, whose text is for the answer. `content` has the types of FIELDS."""
    evaluated = content.keys() & (
        {"from", "subject", "reply_to", "headers"} | ({"text", "html"} if templates else set())
    )
    if any("{{" in str(content[name]) for name in evaluated):
        raise ValueError("the sandbox evaluates no templates: send the text as it is to be")
    try:
        # To is no field of the message's: with ten thousand recipients the package takes seconds to read it.
        to = ",\r\n ".join(dict.fromkeys(_shown(recipient["address"]) for recipient in recipients))
        return f"To: {to}\r\n".encode() + _message(content).as_bytes()
    except (AttributeError, KeyError, TypeError, MessageError) as error:
        raise ValueError(f"no message can be made of content ({type(error).__name__}: {error})") from error


def _message(content: Mapping[str, Any]) -> EmailMessage:
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    for name, value in content.get("headers", {}).items():
        if _NAME.fullmatch(name) is None or not isinstance(value, str):
            raise ValueError("content.headers needs to be an object of names and strings")
        if _BUILT.fullmatch(name) is None:
            message[name] = value
    message["From"] = sender = _one_address(content["from"])
    message["Subject"] = content["subject"]
    if content.get("reply_to"):
        message["Reply-To"] = content["reply_to"]
    domain = sender.rpartition("@")[2].strip(">")
    for name, made in (("Date", formatdate()), ("Message-ID", make_msgid(domain=domain))):
        if name not in message:
            message[name] = made
    if "text" in content:
        message.set_content(content["text"])
    if "html" in content:
        (message.add_alternative if "text" in content else message.set_content)(content["html"], subtype="html")
    for one in content.get("attachments", []):
        kind, _, subtype = one["type"].partition(";")[0].strip().partition("/")
        message.add_attachment(base64.b64decode(one["data"], validate=True), kind, subtype, filename=one["name"])
    return message


def _one_address(given: Any) -> str:
    """An address, one with a name before it, or an object of both."""
    both = [(given.get("name") or "", given["email"])] if isinstance(given, dict) else getaddresses([given])
    if len(both) != 1 or not is_address(both[0][1]):
        raise ValueError("content.from needs to be a valid address")
    return formataddr(both[0])


def _shown(address: Any) -> str:
    """A recipient as To shows it; for copies there is `header_to`."""
    named = address if isinstance(address, dict) else {"email": address}
    header_to = named.get("header_to")
    shown = formataddr(parseaddr(header_to) if header_to else (named.get("name") or "", named["email"]))
    if not shown.isprintable():
        raise ValueError("an address or a name in recipients has line ends or control characters in it")
    return shown
