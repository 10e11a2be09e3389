"""What a dialogue cannot do itself and a session has done for it: log somebody in, have a message taken."""

import re
from typing import Final

import structlog

from relay.core.secret import MASK
from relay.ingress.caller import Caller
from relay.ingress.dialogue import Dialogue
from relay.ingress.service import Service
from relay.ingress.steps import Authenticate, TakeMessage
from relay.observe import log as events

log = structlog.get_logger()

AUTH_DELAY: Final = 1.0  # after the first failed login; doubled at each further one
_LOOKS_LIKE_A_KEY: Final = re.compile(r"[0-9A-Fa-f]{32,}")  # an API key typed where the user name belongs


async def log_in(step: Authenticate, service: Service, caller: Caller, dialogue: Dialogue) -> None:
    """Find out whether it is true; a refusal comes late, so that guessing is slow."""
    assert service.authenticator is not None
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
        await service.clock.sleep(AUTH_DELAY * 2**dialogue.auth_failures)
    else:
        caller.logged_in(result)
    dialogue.authenticated(result.answer, result.login)


async def take(step: TakeMessage, service: Service, caller: Caller, dialogue: Dialogue) -> None:
    """Hand the message over, and tell the dialogue what its sender is answered."""
    answer = await service.reception.receive(
        step.envelope, step.content, step.decision, caller, caller.origin(dialogue.client)
    )
    caller.messages += answer.positive
    dialogue.accepted(answer)
