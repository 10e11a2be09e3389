"""What is not well, decided without sockets: which circuit means what, and what keeps mail out."""

from dataclasses import replace

from relay.admin.overview import Listening, Overview, Phase, PortsInUse
from relay.core.login import Login, Target
from relay.core.outcome import Answer, Failure, FailureKind, HttpAnswer, classify
from relay.core.outcome import Phase as Step
from relay.core.reply import EnhancedCode, Reply
from relay.core.secret import Secret
from relay.delivery.circuits import Circuits
from relay.delivery.last_resort import LastResort

US, EU = Target("us.test", (587, 2525)), Target("eu.test", (587,))
DEFAULT = Login(US, "SMTP_Injection", Secret("key"), "default")
EUROPE = Login(EU, "SMTP_Injection", Secret("other key"), "europe")
TENANT = Login(US, "SMTP_Injection:X-MSYS-SUBACCOUNT=5", Secret("key"), "default")

DOWN = Failure(Step.CONNECT, FailureKind.REFUSED, "port 587: connection refused")
NO_GRANT = HttpAnswer.of(403, code="1100", text="permission denied")
REFUSED = Answer(Step.AUTH, Reply(535, EnhancedCode(5, 7, 8), "no"))
QUOTA = Answer(Step.DOT, Reply(451, EnhancedCode(4, 7, 1), "Exceed Sending Limit (daily)"))


def overview(
    circuits: Circuits, *, spool: bool = True, phase: Phase = Phase.RUNNING, last_resort: LastResort | None = None
) -> Overview:
    return Overview(
        phase=lambda: phase,
        listeners=lambda: [Listening("local", ["127.0.0.1:2525"], open=phase is Phase.RUNNING)],
        spool_problem=(lambda: None) if spool else None,
        ways=circuits,
        targets=(US, EU),
        logins=lambda: {"default": DEFAULT, "europe": EUROPE},
        sessions=dict,
        port_in_use=PortsInUse(),
        last_resort=last_resort or LastResort(lambda _: None, lambda: 0.0),
        mail_of=lambda target: [login for login in (DEFAULT, EUROPE) if login.target == target],
    )


def circuits(last_resort: LastResort | None = None) -> Circuits:
    return Circuits(lambda: 0.0, last_resort=last_resort)


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


# -- HTTPS ------------------------------------------------------------------------------------------------------------


def https() -> LastResort:
    """One API, for keys of the US account alone."""
    return LastResort(lambda login: "https://api.test/api/v1" if login.target == US else None, lambda: 0.0)


def test_a_host_whose_mail_goes_by_https_is_no_problem():
    """SparkPost would take mail now. A host without an API is one, and not even without a spool are all ways shut."""
    last_resort = https()
    ways = circuits(last_resort)
    ways.target_down(US, DOWN)
    carried = found(overview(ways, last_resort=last_resort, spool=False))
    ways.target_down(EU, DOWN)

    assert carried == []
    assert found(overview(ways, last_resort=last_resort, spool=False)) == [("endpoint", "eu.test", False)]


def test_a_key_that_https_does_not_serve_waits_for_smtp():
    """Then the blocked ports are a problem; the reason says what keeps HTTPS from being a way, and the key is good."""
    last_resort = https()
    ways = circuits(last_resort)
    ways.target_down(US, DOWN)
    last_resort.learn(DEFAULT, [classify(NO_GRANT)])
    view = overview(ways, last_resort=last_resort)
    (problem,) = view.problems()

    assert (problem.what, problem.name) == ("endpoint", "us.test")
    assert problem.reason == (
        "port 587: connection refused; credential default over HTTPS: HTTP 403 1100 permission denied"
    )
    assert [one["ok"] for one in view.credentials()] == [True, True]


def test_the_api_is_an_endpoint_of_its_own():
    """Beside the ports, each API once; with its requests, and why it is not up."""
    last_resort = https()
    ways = circuits(last_resort)
    view = replace(
        overview(ways, last_resort=last_resort), sessions=lambda: {("default", "https://api.test", "busy"): 2}
    )
    before = view.endpoints()[-1]
    last_resort.learn(DEFAULT, [classify(DOWN)])

    assert [one["endpoint"] for one in view.endpoints()] == [
        *["us.test:587", "us.test:2525", "eu.test:587"],
        "https://api.test",
    ]
    assert before == {
        "endpoint": "https://api.test",
        "up": True,
        "reason": None,
        "connections": {"idle": 0, "busy": 2},
    }
    assert view.endpoints()[-1]["reason"] == str(DOWN)
