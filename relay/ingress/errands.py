"""What a dialogue cannot do itself and a session has done for it: log somebody in, have a message taken."""

import re
from collections.abc import Awaitable
from typing import Final

import structlog

from relay.core import reply
from relay.core.reply import Reply
from relay.core.secret import MASK
from relay.ingress.bans import FIRST_DELAY, LONGEST_DELAY
from relay.ingress.caller import Caller
from relay.ingress.dialogue import Dialogue
from relay.ingress.reception import Reception, Undecided
from relay.ingress.service import Service
from relay.ingress.steps import Authenticate, TakeMessage
from relay.observe import log as events

log = structlog.get_logger()

_LOOKS_LIKE_A_KEY: Final = re.compile(r"[0-9A-Fa-f]{32,}")  # an API key typed where the user name belongs


async def log_in(step: Authenticate, service: Service, caller: Caller, dialogue: Dialogue) -> None:
    """Find out whether it is true; a refusal comes late, so that guessing is slow."""
    assert service.authenticator is not None
    # An API key is judged by itself: the user name of many is the same.
    user = f"{step.user} {step.password.digest().hex()}" if service.settings.auth == "passthrough" else step.user
    books, now = service.failed_logins, service.clock.monotonic()
    closed = books.closed(caller.premises, user, now)
    if closed:
        dialogue.authenticated(reply.auth_banned(closed), None)
        return
    result = await service.authenticator.authenticate(step.user, step.password)
    failed = result.login is None
    shown = MASK if _LOOKS_LIKE_A_KEY.fullmatch(step.user) else step.user
    log.log(
        30 if failed else 20,
        events.LINK_AUTH,
        session=caller.id,
        listener=service.listener,
        login=shown if failed else result.login,
        ok=not failed,
        reply=str(result.answer),
    )
    if failed:
        service.metrics.auth_failures.inc()
        await _put_off(service, caller, user, dialogue.auth_failures, wrong=result.answer.permanent)
    else:
        books.succeeded(caller.premises, user)
        caller.logged_in(result)
    dialogue.authenticated(result.answer, result.login)


async def _put_off(service: Service, caller: Caller, user: str, failures: int, *, wrong: bool) -> None:
    """Let a refusal come late. What was `wrong` counts; that SparkPost could not be asked does not."""
    delay = min(FIRST_DELAY * 2.0**failures, LONGEST_DELAY)
    if wrong:
        now = service.clock.monotonic()
        late, closed = service.failed_logins.failed(caller.premises, user, now, on_host=caller.on_host)
        delay = max(delay, late)
        if closed:
            log.warning(events.LINK_AUTH_CLOSED, session=caller.id, listener=service.listener, peer=caller.premises)
    await service.clock.sleep(delay)


def take(step: TakeMessage, service: Service, caller: Caller, dialogue: Dialogue) -> Awaitable[None] | None:
    """Hand the message over, and tell the dialogue what its sender is answered. None once that is done, or the rest."""
    received = service.reception.receive(
        step.envelope, step.content, step.decision, caller, caller.origin(dialogue.client)
    )
    if isinstance(received, Reply):
        dialogue.accepted(received)
        return None
    return _tell(received, service.reception, dialogue)


async def _tell(undecided: Undecided, reception: Reception, dialogue: Dialogue) -> None:
    answer = await undecided.answer
    dialogue.accepted(reception.conclude(undecided.arrival, answer))
