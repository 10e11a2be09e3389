"""`sparkpost-relay health`: asks the running relay whether it takes mail. Quick, as it is asked all the time."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from relay.admin.client import AdminClient, NoAnswer
from relay.admin.sockets import database_of, socket_path
from relay.config import Config
from relay.spool.lock import holder

SECONDS: Final = 4.0  # for one answer; a container runtime's patience is a little more
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - to ask, not to bind


def ask(config: Config, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Is it ready, and in words."""
    silence = ""
    try:
        for client in _clients(config, environ):
            try:
                status, told = client.verdict("readyz")
            except NoAnswer as error:
                silence = silence or str(error)
                continue
            if status == 200:
                return True, "ready"
            problems = told.get("problems", []) if isinstance(told, dict) else []
            reasons = [" ".join(filter(None, (one["what"], one["name"]))) + f": {one['reason']}" for one in problems]
            return False, f"not ready: {'; '.join(reasons) or f'{client} answers {status}'}"
    except ProcessLookupError as error:
        return False, f"not ready: {error}"
    return False, f"not ready: {silence or 'there is nowhere to ask: set admin.address, or admin.socket'}"


def _clients(config: Config, environ: Mapping[str, str]) -> Iterator[AdminClient]:
    """Where the relay may be, the surest place first; raises ProcessLookupError if it is certain that none runs."""
    paths: dict[Path, None] = {}
    database = database_of(config)
    if database is not None:
        try:
            owner = holder(database)
        except PermissionError:
            pass  # not ours to look at; its public pages may be
        except OSError as error:
            raise ProcessLookupError(f"no relay runs: {database} cannot be a spool: {error.strerror}") from error
        else:
            if owner is None:
                raise ProcessLookupError(f"no relay runs: nobody has the spool {database} open (sparkpost-relay serve)")
            if owner.socket is not None:
                paths[Path(owner.socket)] = None
    path = socket_path(config, environ)
    if path is not None and os.path.exists(path):  # unlike Path's, it is False where we may not look
        paths[path] = None
    for known in paths:
        yield AdminClient(path=known, timeout=SECONDS)
    address = config.admin.address
    if address is not None and address.port:
        yield AdminClient(host=_WILDCARDS.get(address.host, address.host), port=address.port, timeout=SECONDS)
