"""`sparkpost-relay queue …`: reads the arguments; `relay.admin.commands` does the work.

Statuses follow sysexits(3): 0 fine, 1 a message that is not there or cannot be moved so, 69 the relay does not answer,
78 bad configuration.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from relay.core.lifecycle import Event, State
from relay.options import ConfigOption, fail, load_places

if TYPE_CHECKING:
    from pathlib import Path

    from relay.admin.queues import Queue

queue = typer.Typer(
    help="See and steer stored messages: through the relay while it runs, in its spool while it does not.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StateOption = Annotated[State | None, typer.Option("--state", help="Only messages in this state.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Queue ids, as `list` shows them.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The queue id, as `list` shows it.")]
AllOption = Annotated[bool, typer.Option("--all", help="All messages to which it applies; see above.")]


def _with_queue(config: "Path | None", work: "Callable[[Queue], int]") -> None:
    """Open the queue by whichever way is open, do the work, exit with its status."""
    from relay.admin.queues import QueueError, opened
    from relay.admin.tables import printable
    from relay.observe import log

    log.configure(form="auto", level="warning", addresses="plain")
    try:
        with opened(load_places(config)) as found:
            status = work(found)
    except QueueError as error:
        fail(printable(str(error)), error.status)
    raise typer.Exit(status)


@queue.command("list")
def list_messages(
    state: StateOption = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="TEXT", help="Only messages with this in id, identity, addresses, replies or reason."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="At most so many; 200 in a table, all with --json."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List messages, the oldest first: those that are queued, being sent (active), held or failed.

    What is done with (delivered, deleted) is listed with --state, and found with --search.
    """
    from relay.admin import commands

    _with_queue(
        config, lambda found: commands.list_messages(found, state=state, search=search, limit=limit, as_json=as_json)
    )


@queue.command()
def show(
    queue_id: IdArgument,
    content: Annotated[
        bool, typer.Option("--content", help="Print the message itself instead; in a pipe, octet by octet.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show one message: whose it is, what each recipient got to hear, every attempt, and its header."""
    from relay.admin import commands

    _with_queue(config, lambda found: commands.show(found, queue_id, content=content, as_json=as_json))


@queue.command()
def retry(
    queue_ids: IdsArgument = None,
    everything: AllOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Send messages now: queued ones at once, failed ones again to those who have not got them.

    --all is all that are queued; with --state failed, all that have failed.
    """
    _move(Event.RETRY, queue_ids, everything=everything, state=state, as_json=as_json, config=config)


@queue.command()
def hold(
    queue_ids: IdsArgument = None,
    everything: AllOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Keep messages from being sent until they are released. --all is all that are queued or being sent."""
    _move(Event.HOLD, queue_ids, everything=everything, state=state, as_json=as_json, config=config)


@queue.command()
def release(
    queue_ids: IdsArgument = None,
    everything: AllOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let held messages go, under the credential and subaccount that their identity has now. --all is all held ones."""
    _move(Event.RELEASE, queue_ids, everything=everything, state=state, as_json=as_json, config=config)


@queue.command()
def delete(
    queue_ids: IdsArgument = None,
    everything: AllOption = False,
    state: StateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Throw messages away; a line in the ledger stays. --all is all that are queued, being sent, held or failed."""
    _move(Event.DELETE, queue_ids, everything=everything, state=state, as_json=as_json, config=config)


@queue.command()
def stats(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Count the messages by state, and say how long the oldest that is still to be delivered has waited."""
    from relay.admin import commands

    _with_queue(config, lambda found: commands.stats(found, as_json=as_json))


def _move(
    command: Event,
    queue_ids: list[str] | None,
    *,
    everything: bool,
    state: State | None,
    as_json: bool,
    config: "Path | None",
) -> None:
    from relay.admin import commands

    if everything == bool(queue_ids) or (state is not None and not everything):
        raise typer.BadParameter("name messages by their ids, or give --all, with --state if you like")

    def work(found: "Queue") -> int:
        if everything:
            return commands.move_all(found, command, state=state, as_json=as_json)
        return commands.move(found, command, queue_ids or [], as_json=as_json)

    _with_queue(config, work)
