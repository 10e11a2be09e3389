"""What is not well, decided without sockets: which circuit means what, and what keeps mail out."""

from dataclasses import replace

from relay.admin.overview import Listening, Overview, Phase, PortsInUse
from relay.core.login import Login, Target
from relay.core.outcome import Answer, Failure, FailureKind, classify
from relay.core.outcome import Phase as Step
from relay.core.reply import EnhancedCode, Reply
from relay.core.secret import Secret
from relay.delivery.circuits import Circuits

US, EU = Target("us.test", (587, 2525)), Target("eu.test", (587,))
DEFAULT = Login(US, "SMTP_Injection", Secret("key"), "default")
EUROPE = Login(EU, "SMTP_Injection", Secret("other key"), "europe")
TENANT = Login(US, "SMTP_Injection:X-MSYS-SUBACCOUNT=5", Secret("key"), "default")

DOWN = Failure(Step.CONNECT, FailureKind.REFUSED, "port 587: connection refused")
REFUSED = Answer(Step.AUTH, Reply(535, EnhancedCode(5, 7, 8), "no"))
QUOTA = Answer(Step.DOT, Reply(451, EnhancedCode(4, 7, 1), "Exceed Sending Limit (daily)"))


def overview(circuits: Circuits, *, spool: bool = True, phase: Phase = Phase.RUNNING) -> Overview:
    return Overview(
        phase=lambda: phase,
        listeners=lambda: [Listening("local", ["127.0.0.1:2525"], open=phase is Phase.RUNNING)],
        spool_problem=(lambda: None) if spool else None,
        ways=circuits,
        targets=(US, EU),
        logins=lambda: {"default": DEFAULT, "europe": EUROPE},
        sessions=dict,
        port_in_use=PortsInUse(),
    )


def circuits() -> Circuits:
    return Circuits(lambda: 0.0)


def found(view: Overview) -> list[tuple[str, str, bool]]:
    return [(one.what, one.name, one.shuts) for one in view.problems()]


def test_nothing_known_is_nothing_wrong():
    """A relay that has sent nothing yet is healthy."""
    assert overview(circuits()).problems() == []


def test_one_host_of_two_that_is_down_keeps_no_mail_out():
    """Not even without a spool; only when no way is left."""
    ways = circuits()
    ways.target_down(US, DOWN)
    one = found(overview(ways, spool=False))
    ways.target_down(EU, DOWN)

    assert one == [("endpoint", "us.test", False)]
    assert found(overview(ways, spool=False)) == [("endpoint", "us.test", True), ("endpoint", "eu.test", True)]
    assert found(overview(ways)) == [("endpoint", "us.test", False), ("endpoint", "eu.test", False)]


def test_a_refused_subaccount_says_nothing_about_the_key():
    """It is unhealthy and named with its user name; the credential is good for the others."""
    ways = circuits()
    ways.learn(TENANT, [classify(REFUSED)])
    view = overview(ways)
    (problem,) = view.problems()
    default, europe = view.credentials()

    assert "X-MSYS-SUBACCOUNT=5" in problem.reason
    assert (default["ok"], europe["ok"]) == (True, True)
    assert [one["username"] for one in default["refused"]] == [TENANT.username]


def test_a_refused_key_is_not_ok():
    """Its bare login was refused: so is the credential, and only this one."""
    ways = circuits()
    ways.learn(DEFAULT, [classify(REFUSED)])

    assert [one["ok"] for one in overview(ways).credentials()] == [False, True]


def test_a_plan_over_its_quota_is_unhealthy_and_its_key_is_good():
    """SparkPost would not take mail now, and another key would not help."""
    ways = circuits()
    ways.learn(EUROPE, [classify(QUOTA)])
    view = overview(ways)

    assert found(view) == [("credential", "europe", False)]
    assert "Exceed Sending Limit" in view.problems()[0].reason
    assert all(one["ok"] for one in view.credentials())


def test_before_and_after_its_life_it_is_not_ready():
    """Starting and draining keep mail out, each with a reason; its listeners are not blamed for that."""
    for phase in (Phase.STARTING, Phase.DRAINING):
        assert found(overview(circuits(), phase=phase)) == [("relay", "", True)]


def test_endpoints_behind_the_one_in_use_are_not_known_to_be_down():
    """What was passed over on the way to it is."""
    ports = PortsInUse()
    view = overview(circuits())
    fresh = [(one["endpoint"], one["up"]) for one in view.endpoints()]
    ports.reached(US, 2525)
    view = replace(view, port_in_use=ports)
    fallen_back = [(one["endpoint"], one["up"]) for one in view.endpoints()]
    ports.reached(US, 587)
    recovered = [(one["endpoint"], one["up"]) for one in view.endpoints()]

    assert fresh == recovered == [("us.test:587", True), ("us.test:2525", True), ("eu.test:587", True)]
    assert fallen_back == [("us.test:587", False), ("us.test:2525", True), ("eu.test:587", True)]
