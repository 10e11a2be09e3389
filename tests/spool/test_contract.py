"""What `core.ports.Spool` and `core.ports.Archive` promise, kept by the spool on the disk and by its twin in memory."""

import pytest

from relay.core.lifecycle import LEASE, Event, Fate, IllegalTransition, State
from relay.core.login import Assignment
from relay.core.message import MemoryBody
from relay.core.spooled import Lane, SpoolUnavailable, UnknownMessage, Unreadable
from tests.spool.homes import AnySpool, Home
from tests.support.mail import LARGE, MAX_AGE, SMALL, bounced, deferred, delivered, deposit, message, record


async def _claimed(spool: AnySpool, limit: int = 100, *, skip: tuple[Lane, ...] = ()) -> list[str]:
    return [claim.message.queue_id for claim in (await spool.claim(limit, skip=skip)).claims]


async def _state(spool: AnySpool, queue_id: str) -> State:
    return (await spool.entry(queue_id)).state


async def _fates(spool: AnySpool, queue_id: str) -> list[Fate]:
    return [recipient.fate for recipient in (await spool.entry(queue_id)).recipients]


# -- put --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_what_is_put_comes_out_as_it_was(home: Home, body: bytes) -> None:
    """Envelope with all its parameters, promise by name, content to the octet."""
    put = deposit("Q1", recipients=3, body=body, credential="billing", subaccount=7)
    await home.spool.put(put)

    (claim,) = (await home.spool.claim(10)).claims

    assert claim.message.envelope == put.message.envelope
    assert claim.assignment == put.assignment
    assert b"".join(claim.message.content.chunks()) == b"".join(put.message.content.chunks())
    assert claim.message.content.size == put.message.content.size
    assert (claim.message.content.longest_line, claim.message.content.eight_bit) == (76, False)
    assert claim.pending == (0, 1, 2)
    assert (claim.attempts, claim.failed_before, claim.received) == (0, False, put.received)
    assert claim.age_left == pytest.approx(MAX_AGE)


async def test_a_null_reverse_path_stays_null(home: Home) -> None:
    put = deposit("Q1")._replace(message=message("Q1", null_sender=True))
    await home.spool.put(put)

    (claim,) = (await home.spool.claim(1)).claims

    assert claim.message.envelope.reverse_path.address is None


async def test_a_queue_id_cannot_be_put_twice(home: Home) -> None:
    """Two messages that met in one id: the second is refused, the first is as it was."""
    await home.spool.put(deposit("Q1"))

    with pytest.raises(SpoolUnavailable):
        await home.spool.put(deposit("Q1", body=b"\r\nanother\r\n"))

    (claim,) = (await home.spool.claim(10)).claims
    assert b"".join(claim.message.content.body.chunks()) == SMALL


async def test_a_large_queue_id_cannot_be_put_twice(home: Home) -> None:
    """The file of the first is not touched."""
    await home.spool.put(deposit("Q1", body=LARGE))

    with pytest.raises(SpoolUnavailable):
        await home.spool.put(deposit("Q1", body=LARGE[::-1]))

    (claim,) = (await home.spool.claim(10)).claims
    assert b"".join(claim.message.content.body.chunks()) == LARGE


async def test_a_message_put_with_its_claim_is_nobody_elses(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))

    assert await _state(home.spool, "Q1") is State.ACTIVE
    assert await _claimed(home.spool) == []

    await home.spool.record("Q1", delivered())
    assert await _state(home.spool, "Q1") is State.DELIVERED


async def test_a_message_put_with_what_an_attempt_came_to_waits_for_the_rest(home: Home) -> None:
    """Of three recipients one has got it and one never will: only the third is pending."""
    outcome = record(Event.DEFER, Fate.DELIVERED, Fate.PENDING, Fate.BOUNCED, delay=30)
    await home.spool.put(deposit("Q1", recipients=3, record=outcome))

    assert await _claimed(home.spool) == []
    assert (await home.spool.claim(10)).next_due == pytest.approx(30)

    home.clock.advance(30)
    (claim,) = (await home.spool.claim(10)).claims
    assert (claim.pending, claim.attempts, claim.failed_before) == ((1,), 1, True)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_a_delivered_message_is_put_for_the_ledger_without_its_content(home: Home, body: bytes) -> None:
    await home.spool.put(deposit("Q1", body=body, record=delivered()))

    entry = await home.spool.entry("Q1")
    assert (entry.state, entry.size) == (State.DELIVERED, deposit("Q1", body=body).message.content.size)
    assert entry.recipients[0].message_id == "1F/2E"
    assert await home.spool.header("Q1") is None
    with pytest.raises(Unreadable, match="not in the spool"):
        await home.spool.content("Q1")


# -- claim ------------------------------------------------------------------------------------------------------------


async def test_the_oldest_is_claimed_first(home: Home) -> None:
    for queue_id in ("Q3", "Q1", "Q2"):
        await home.spool.put(deposit(queue_id))
        home.clock.advance(1)

    assert await _claimed(home.spool, 2) == ["Q3", "Q1"]
    assert await _claimed(home.spool, 2) == ["Q2"]
    assert await _claimed(home.spool, 2) == []


async def test_a_lane_with_a_mountain_of_mail_does_not_starve_the_others(home: Home) -> None:
    for number in range(20):
        await home.spool.put(deposit(f"M{number:02}", credential="mountain"))
    home.clock.advance(1)
    for number in range(3):
        await home.spool.put(deposit(f"S{number}", credential="small"))

    taken = await _claimed(home.spool, 6)

    assert sorted(taken) == ["M00", "M01", "M02", "S0", "S1", "S2"]
    assert len(await _claimed(home.spool, 6)) == 6


async def test_where_there_are_more_lanes_than_room_those_with_the_oldest_mail_come_first(home: Home) -> None:
    for number in range(5):
        await home.spool.put(deposit(f"Q{number}", subaccount=number + 1))
        home.clock.advance(1)

    assert await _claimed(home.spool, 2) == ["Q0", "Q1"]


async def test_lanes_that_are_skipped_are_left_alone_and_named(home: Home) -> None:
    await home.spool.put(deposit("Q1", credential="a"))
    await home.spool.put(deposit("Q2", credential="b", subaccount=5))

    claimed = await home.spool.claim(10, skip=[Lane("a", None)])

    assert [claim.message.queue_id for claim in claimed.claims] == ["Q2"]
    assert claimed.lanes == {Lane("a", None), Lane("b", 5)}
    assert claimed.next_due is None
    assert await _state(home.spool, "Q1") is State.QUEUED


async def test_a_claim_tells_when_more_falls_due(home: Home) -> None:
    """In the lanes it looked at: at once where there was no room for all, else when the next one's wait is over."""
    for queue_id in ("Q1", "Q2"):
        await home.spool.put(deposit(queue_id))
    await home.spool.put(deposit("Q3", record=deferred(delay=40)))
    await home.spool.put(deposit("Q4", credential="other", record=deferred(delay=10)))

    assert (await home.spool.claim(1)).next_due == 0
    assert (await home.spool.claim(1, skip=[Lane("other", None)])).next_due == pytest.approx(40)
    assert (await home.spool.claim(1)).next_due == pytest.approx(10)


async def test_an_empty_spool_has_nothing_to_claim(home: Home) -> None:
    claimed = await home.spool.claim(10)

    assert (claimed.claims, claimed.damaged, claimed.lanes, claimed.next_due) == ((), (), frozenset(), None)


# -- record -----------------------------------------------------------------------------------------------------------


async def test_a_deferred_message_comes_round_when_its_wait_is_over(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    await home.spool.record("Q1", deferred(delay=5))

    entry = await home.spool.entry("Q1")
    assert (entry.state, entry.attempts, entry.reason) == (State.QUEUED, 1, "it was said to defer")
    assert entry.due == pytest.approx(home.clock.now() + 5)
    assert await _claimed(home.spool) == []
    home.clock.advance(5)
    assert await _claimed(home.spool) == ["Q1"]


async def test_a_deferral_that_is_not_the_messages_fault_counts_no_attempt(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    plain = deferred(delay=0)
    await home.spool.record("Q1", plain._replace(settlement=plain.settlement._replace(counted=False)))

    assert (await home.spool.entry("Q1")).attempts == 0
    assert len((await home.spool.entry("Q1")).history) == 1


async def test_an_ambiguous_attempt_marks_the_message(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    plain = deferred(delay=0)
    await home.spool.record("Q1", plain._replace(settlement=plain.settlement._replace(ambiguous=True)))

    assert (await home.spool.entry("Q1")).maybe_twice


async def test_a_dead_letter_keeps_its_content(home: Home) -> None:
    await home.spool.put(deposit("Q1", body=LARGE, claimed=True))
    await home.spool.record("Q1", bounced())

    assert await _state(home.spool, "Q1") is State.FAILED
    assert await _fates(home.spool, "Q1") == [Fate.BOUNCED]
    assert b"".join((await home.spool.content("Q1")).body.chunks()) == LARGE


async def test_a_failure_and_the_notice_about_it_are_one_write(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    await home.spool.record("Q1", record(Event.FAIL, Fate.BOUNCED, notice=deposit("N1", body=LARGE)))

    (claim,) = (await home.spool.claim(10)).claims
    assert claim.message.queue_id == "N1"
    assert b"".join(claim.message.content.body.chunks()) == LARGE


async def test_a_record_that_is_written_a_second_time_makes_no_second_notice(home: Home) -> None:
    """As when the first writing was refused, and a crash brought it back all the same."""
    await home.spool.put(deposit("Q1", claimed=True))
    what = record(Event.FAIL, Fate.BOUNCED, notice=deposit("N1"))
    await home.spool.record("Q1", what)

    await home.spool.record("Q1", what)

    assert await _state(home.spool, "Q1") is State.FAILED
    assert await _claimed(home.spool) == ["N1"]


async def test_the_history_has_a_line_for_each_reply_with_those_who_heard_it(home: Home) -> None:
    await home.spool.put(deposit("Q1", recipients=3, claimed=True))
    await home.spool.record("Q1", record(Event.DEFER, Fate.PENDING, Fate.DELIVERED, Fate.PENDING))
    home.clock.advance(60)
    await _claimed(home.spool)
    await home.spool.record("Q1", record(Event.DELIVER, Fate.DELIVERED, Fate.DELIVERED, Fate.DELIVERED))

    history = [(line.number, line.outcome, list(line.recipients)) for line in (await home.spool.entry("Q1")).history]
    assert history == [(1, "deferred", [0, 2]), (1, "delivered", [1]), (2, "delivered", [0, 1, 2])]


async def test_nothing_is_recorded_about_a_message_that_is_not_there(home: Home) -> None:
    with pytest.raises(UnknownMessage, match="Q9"):
        await home.spool.record("Q9", delivered())


# -- leases -----------------------------------------------------------------------------------------------------------


async def test_a_claim_whose_lease_is_over_is_due_and_marked(home: Home) -> None:
    await home.spool.put(deposit("Q1"))
    await _claimed(home.spool)

    home.clock.advance(LEASE - 1)
    assert list(await home.spool.reclaim(())) == []
    home.clock.advance(1)
    assert list(await home.spool.reclaim(())) == ["Q1"]

    entry = await home.spool.entry("Q1")
    assert (entry.state, entry.maybe_twice) == (State.QUEUED, True)
    assert await _claimed(home.spool) == ["Q1"]


async def test_a_claim_that_is_renewed_or_alive_is_not_lost(home: Home) -> None:
    for queue_id in ("Q1", "Q2"):
        await home.spool.put(deposit(queue_id, claimed=True))
    home.clock.advance(LEASE - 1)
    await home.spool.renew(["Q1", "unknown"])
    home.clock.advance(1)

    assert list(await home.spool.reclaim({"Q2"})) == []
    assert list(await home.spool.reclaim(())) == ["Q2"]


async def test_what_sparkpost_said_for_good_stands_though_the_claim_was_lost(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    home.clock.advance(LEASE)
    await home.spool.reclaim(())

    await home.spool.record("Q1", delivered())

    assert await _state(home.spool, "Q1") is State.DELIVERED
    assert await _claimed(home.spool) == []


async def test_a_late_deferral_leaves_the_schedule_to_whoever_has_it_now(home: Home) -> None:
    await home.spool.put(deposit("Q1", recipients=2, claimed=True))
    home.clock.advance(LEASE)
    await home.spool.reclaim(())

    await home.spool.record("Q1", record(Event.DEFER, Fate.DELIVERED, Fate.PENDING, delay=1000))

    (claim,) = (await home.spool.claim(10)).claims
    assert claim.pending == (1,)


async def test_a_late_deferral_does_not_bring_back_what_was_deleted(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    home.clock.advance(LEASE)
    await home.spool.reclaim(())
    await home.spool.act("Q1", Event.DELETE)

    await home.spool.record("Q1", deferred())

    assert await _state(home.spool, "Q1") is State.DELETED
    assert await _fates(home.spool, "Q1") == [Fate.DELETED]


async def test_claims_given_back_are_as_if_nothing_had_been(home: Home) -> None:
    for queue_id in ("Q1", "Q2"):
        await home.spool.put(deposit(queue_id))
        home.clock.advance(1)
    await _claimed(home.spool)

    await home.spool.give_back(["Q1", "Q2", "unknown"])

    assert not (await home.spool.entry("Q1")).maybe_twice
    assert await _claimed(home.spool) == ["Q1", "Q2"]


async def test_a_held_message_waits_for_the_operator(home: Home) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    await home.spool.hold("Q1", "its identity has gone")

    entry = await home.spool.entry("Q1")
    assert (entry.state, entry.reason) == (State.HELD, "its identity has gone")
    assert await _claimed(home.spool) == []
    await home.spool.hold("Q1", "said too late")
    assert (await home.spool.entry("Q1")).reason == "its identity has gone"


async def test_what_is_over_age_in_a_lane_that_is_held_back_is_held(home: Home) -> None:
    """Only there: other mail gets its last attempt, however much of it is over age."""
    for number in range(510):
        await home.spool.put(deposit(f"O{number:03}", credential="open", max_age=10))
    await home.spool.put(deposit("Q1", credential="shut", max_age=20))
    await home.spool.put(deposit("Q2", credential="shut", max_age=1000))
    home.clock.advance(20)

    held = await home.spool.hold_over_age([Lane("shut", None), Lane("unheard of", None)])

    assert list(held) == ["Q1"]
    assert await _state(home.spool, "Q1") is State.HELD
    assert await _state(home.spool, "Q2") is State.QUEUED
    assert await _state(home.spool, "O000") is State.QUEUED


# -- crash and clocks -------------------------------------------------------------------------------------------------


async def test_after_a_crash_everything_is_there_and_claims_are_due_and_marked(home: Home) -> None:
    await home.spool.put(deposit("Q1", body=LARGE))
    await home.spool.put(deposit("Q2"))
    await home.spool.put(deposit("Q3", claimed=True))
    await home.spool.act("Q2", Event.HOLD)

    await home.crash()

    assert [await _state(home.spool, queue_id) for queue_id in ("Q1", "Q2", "Q3")] == [
        State.QUEUED,
        State.HELD,
        State.QUEUED,
    ]
    assert not (await home.spool.entry("Q1")).maybe_twice
    assert (await home.spool.entry("Q3")).maybe_twice
    assert b"".join((await home.spool.content("Q1")).body.chunks()) == LARGE


@pytest.mark.parametrize(("wish", "state"), [(Event.HOLD, State.HELD), (Event.DELETE, State.DELETED)])
async def test_what_the_operator_wanted_of_an_attempt_survives_its_crash(home: Home, wish: Event, state: State) -> None:
    await home.spool.put(deposit("Q1", body=LARGE, claimed=True))
    assert await home.spool.act("Q1", wish) is State.ACTIVE

    await home.crash()

    assert await _state(home.spool, "Q1") is state
    assert await _claimed(home.spool) == []


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
async def test_a_clock_that_jumps_while_the_relay_runs_moves_nothing(home: Home, jump: float) -> None:
    await home.spool.put(deposit("Q1", record=deferred(delay=60), max_age=100))
    await home.spool.put(deposit("Q2", record=bounced()))
    home.clock.jump(jump)

    claimed = await home.spool.claim(10)
    assert (claimed.claims, claimed.next_due) == ((), pytest.approx(60))
    assert await home.spool.purge(failed_for=3600, ended_for=3600) == 0
    assert (await home.spool.entry("Q1")).due == pytest.approx(home.clock.now() + 60)

    home.clock.advance(60)
    (claim,) = (await home.spool.claim(10)).claims
    assert claim.age_left == pytest.approx(40)


async def test_the_time_the_relay_was_away_counts(home: Home) -> None:
    await home.spool.put(deposit("Q1", record=deferred(delay=60), max_age=100))
    await home.spool.renew(())

    home.clock.reboot(50)
    await home.crash()

    assert (await home.spool.claim(10)).next_due == pytest.approx(10)


async def test_a_host_that_woke_up_in_the_past_makes_mail_no_older(home: Home) -> None:
    await home.spool.put(deposit("Q1", record=deferred(delay=60), max_age=100))
    await home.spool.renew(())

    home.clock.reboot(-1e9)
    await home.crash()

    assert (await home.spool.claim(10)).next_due == pytest.approx(60)


async def test_a_host_that_had_never_been_told_the_date_makes_mail_no_older_when_it_is(home: Home) -> None:
    """It ran in 1970, was switched off, and starts with the right time."""
    home.clock.jump(100.0 - home.clock.now())
    await home.crash()
    await home.spool.put(deposit("Q1", record=deferred(delay=60), max_age=100))
    await home.spool.renew(())

    home.clock.reboot(1_800_000_000.0)
    await home.crash()

    assert (await home.spool.claim(10)).next_due == pytest.approx(60)


# -- the operator -----------------------------------------------------------------------------------------------------


async def test_the_operator_holds_and_releases(home: Home) -> None:
    """A released message starts anew: its attempts, its age, and the promise it travels under."""
    await home.spool.put(deposit("Q1", record=deferred(delay=600), max_age=1000))
    home.clock.advance(500)

    assert await home.spool.act("Q1", Event.HOLD) is State.HELD
    assert await _claimed(home.spool) == []
    assert await home.spool.act("Q1", Event.RELEASE, Assignment("till", "other", 9)) is State.QUEUED

    (claim,) = (await home.spool.claim(10)).claims
    assert (claim.assignment, claim.attempts) == (Assignment("till", "other", 9), 0)
    assert claim.age_left == pytest.approx(1000)


async def test_the_operator_has_a_deferred_message_tried_at_once(home: Home) -> None:
    await home.spool.put(deposit("Q1", record=deferred(delay=600)))

    assert await home.spool.act("Q1", Event.RETRY) is State.QUEUED
    assert await _claimed(home.spool) == ["Q1"]


async def test_a_dead_letter_that_is_retried_goes_to_those_who_have_not_got_it(home: Home) -> None:
    await home.spool.put(
        deposit("Q1", recipients=3, record=record(Event.FAIL, Fate.DELIVERED, Fate.BOUNCED, Fate.EXPIRED))
    )

    assert await home.spool.act("Q1", Event.RETRY) is State.QUEUED

    (claim,) = (await home.spool.claim(10)).claims
    assert (claim.pending, claim.failed_before) == ((1, 2), False)


async def test_a_deleted_message_leaves_its_line_in_the_ledger(home: Home) -> None:
    await home.spool.put(deposit("Q1", body=LARGE, recipients=2))

    assert await home.spool.act("Q1", Event.DELETE) is State.DELETED

    assert await _fates(home.spool, "Q1") == [Fate.DELETED, Fate.DELETED]
    assert await home.spool.header("Q1") is None


@pytest.mark.parametrize("wish", [Event.HOLD, Event.DELETE])
async def test_a_wish_gives_way_to_a_delivery(home: Home, wish: Event) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    assert await home.spool.act("Q1", wish) is State.ACTIVE

    await home.spool.record("Q1", delivered())

    assert await _state(home.spool, "Q1") is State.DELIVERED


@pytest.mark.parametrize(
    ("wish", "outcome", "state"),
    [
        (Event.HOLD, deferred(), State.HELD),
        (Event.HOLD, bounced(), State.FAILED),
        (Event.DELETE, deferred(), State.DELETED),
        (Event.DELETE, bounced(), State.DELETED),
        (Event.DELETE, record(Event.HOLD, Fate.PENDING), State.DELETED),
    ],
)
async def test_a_wish_is_fulfilled_when_the_attempt_has_not_delivered(
    home: Home, wish: Event, outcome: object, state: State
) -> None:
    await home.spool.put(deposit("Q1", claimed=True))
    await home.spool.act("Q1", wish)

    await home.spool.record("Q1", outcome)  # type: ignore[arg-type]

    assert await _state(home.spool, "Q1") is state


@pytest.mark.parametrize("wish", [Event.HOLD, Event.DELETE])
async def test_a_wish_is_fulfilled_when_the_claim_is_given_back_or_held(home: Home, wish: Event) -> None:
    for queue_id in ("Q1", "Q2"):
        await home.spool.put(deposit(queue_id, claimed=True))
        await home.spool.act(queue_id, wish)

    await home.spool.give_back(["Q1"])
    await home.spool.hold("Q2", "its identity has gone")

    wanted = State.HELD if wish is Event.HOLD else State.DELETED
    assert [await _state(home.spool, queue_id) for queue_id in ("Q1", "Q2")] == [wanted, wanted]


async def test_what_is_not_possible_is_refused_with_what_is(home: Home) -> None:
    await home.spool.put(deposit("Q1"))
    await home.spool.put(deposit("Q2", claimed=True))
    await home.spool.put(deposit("Q3", record=delivered()))

    with pytest.raises(IllegalTransition, match=r"it is queued.*delete, hold, retry"):
        await home.spool.act("Q1", Event.RELEASE)
    with pytest.raises(IllegalTransition, match="it is active"):
        await home.spool.act("Q2", Event.RETRY)
    with pytest.raises(IllegalTransition, match="nothing"):
        await home.spool.act("Q3", Event.DELETE)

    assert [await _state(home.spool, queue_id) for queue_id in ("Q1", "Q2", "Q3")] == [
        State.QUEUED,
        State.ACTIVE,
        State.DELIVERED,
    ]


async def test_a_message_nobody_knows_is_said_to_be_unknown(home: Home) -> None:
    for question in (
        home.spool.entry("Q9"),
        home.spool.header("Q9"),
        home.spool.content("Q9"),
        home.spool.act("Q9", Event.DELETE),
        home.spool.hold("Q9", "why"),
    ):
        with pytest.raises(UnknownMessage, match="Q9"):
            await question  # type: ignore[misc]


async def test_what_was_kept_long_enough_goes(home: Home) -> None:
    """Dead letters after their time, the ledger's lines after theirs; what is not finished stays for ever."""
    await home.spool.put(deposit("Q1", body=LARGE, record=bounced()))
    await home.spool.put(deposit("Q2", record=delivered()))
    await home.spool.put(deposit("Q3"))
    await home.spool.put(deposit("Q4"))
    await home.spool.act("Q4", Event.HOLD)

    home.clock.advance(101)
    assert await home.spool.purge(failed_for=200, ended_for=100) == 1
    home.clock.advance(100)
    assert await home.spool.purge(failed_for=200, ended_for=100) == 1
    home.clock.advance(1e9)
    assert await home.spool.purge(failed_for=200, ended_for=100) == 0

    assert [entry.queue_id for entry in (await home.spool.page()).entries] == ["Q3", "Q4"]


async def test_the_stats_count_by_state_and_know_the_oldest(home: Home) -> None:
    await home.spool.put(deposit("Q1", record=delivered()))
    await home.spool.put(deposit("Q2")._replace(received=home.clock.now()))
    home.clock.advance(70)
    await home.spool.put(deposit("Q3", claimed=True)._replace(received=home.clock.now()))

    stats = await home.spool.stats()

    assert {state: count for state, count in stats.messages.items() if count} == {
        State.DELIVERED: 1,
        State.QUEUED: 1,
        State.ACTIVE: 1,
    }
    assert stats.oldest == pytest.approx(70)


async def test_pages_follow_one_another_in_the_order_of_arrival(home: Home) -> None:
    for number in range(7):
        await home.spool.put(deposit(f"Q{number}"))
    await home.spool.act("Q2", Event.HOLD)

    seen, cursor = [], None
    while True:
        page = await home.spool.page(state=State.QUEUED, cursor=cursor, limit=2)
        seen.append([entry.queue_id for entry in page.entries])
        if (cursor := page.cursor) is None:
            break

    assert seen == [["Q0", "Q1"], ["Q3", "Q4"], ["Q5", "Q6"]]


@pytest.mark.parametrize("words", ["q1", "B1@example", "SHOP", "later", "a@EXAMPLE.com", "it was said"])
async def test_a_search_looks_at_ids_addresses_identities_and_replies(home: Home, words: str) -> None:
    other = deposit("Z8")._replace(assignment=Assignment("till", "default", None))
    await home.spool.put(other._replace(message=message("Z8", null_sender=True)))
    await home.spool.put(deposit("Q1", recipients=2, record=deferred(2)))

    page = await home.spool.page(search=words, limit=1000)

    found = [entry.queue_id for entry in page.entries]
    assert "Q1" in found
    assert "Z8" not in found


async def test_the_operator_sees_header_and_content(home: Home) -> None:
    await home.spool.put(deposit("Q1"))

    assert (await home.spool.header("Q1") or b"").startswith(b"From: a@example.com\r\n")
    content = await home.spool.content("Q1")
    assert b"".join(content.chunks()).endswith(SMALL)
    assert isinstance(content.body, MemoryBody)
