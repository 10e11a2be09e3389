"""Every key of the configuration: its type, its default as an operator would write it, and what it means.

The models are frozen, take no unknown key, and hold ready values: seconds, octets, networks, addresses, secrets. What
`model_dump(by_alias=True)` gives is the same configuration as it would be written, with secrets masked. Rules that
concern more than one key are in `check`; keys whose feature is not there yet are listed in `keys`.
"""

import re
import socket
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator

from relay.config import addresses, listening, units
from relay.config.addresses import IPNetwork
from relay.config.listening import ListenerAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.core import smtp_api
from relay.core.login import MAX_SUBACCOUNT, PASSTHROUGH
from relay.core.secret import MASK, Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: letters, digits, '.', '_' and '-', at most 64")
    return value


def _credential_name(value: object) -> str:
    if value == PASSTHROUGH:
        raise ValueError(f"{PASSTHROUGH!r} is the label of keys that applications present: choose another name")
    return _name(value)


def _positive(seconds: float) -> float:
    if seconds == 0:
        raise ValueError("a time longer than 0 is expected: write 10s")
    return seconds


def _secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("a secret is text, {env: NAME}, {file: PATH} or {credential: NAME}")
    return Secret(value)


def _subaccount(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SUBACCOUNT:
        raise ValueError(f"{value!r} is not a subaccount: a whole number from 1 to {MAX_SUBACCOUNT}, or null for none")
    return value


def _tls_version(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # an unquoted 1.2 is a number in YAML


def _not_empty(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("the list is empty: give at least one, or leave the key out for its default")
    return items


def _tcp_address(value: object) -> TcpAddress:
    return value if isinstance(value, TcpAddress) else TcpAddress.parse(value)


def _listener_address(value: object) -> ListenerAddress:
    if isinstance(value, (TcpAddress, UnixAddress, SystemdAddress)):
        return value
    return listening.parse_listener_address(value)


def _uids(value: object) -> tuple[int, ...]:
    uids = value if isinstance(value, (list, tuple)) else [value]
    if not uids or not all(isinstance(uid, int) and not isinstance(uid, bool) and 0 <= uid < 2**32 - 1 for uid in uids):
        raise ValueError("a user id is a number, as `id -u` prints it: write 33, or [33, 1000] for several")
    return tuple(uids)


def _bounce_address(value: object) -> str:
    if value == "sender":
        return "sender"
    try:
        return addresses.parse_mail_address(value)
    except ValueError as error:
        raise ValueError(f"{error}; or write sender, for the reverse-path") from None


def _spool_url(value: object) -> str:
    if isinstance(value, str) and (value == "none" or re.fullmatch(r"sqlite:(?!//|:).*[^/]", value)):
        return value
    written = "sqlite:" if value == {"sqlite": None} else value  # without a path and quotes, YAML has it as a mapping
    raise ValueError(f"{written!r} is not a spool: write sqlite:/var/lib/sparkpost-relay/spool.db, or none")


def _askable(value: object) -> str:
    if value not in smtp_api.ALL:
        raise ValueError(f"{value!r} is nothing that SparkPost can be asked for: there is {', '.join(smtp_api.ALL)}")
    return str(value)


def _asked(document: Callable[[Any], Mapping[str, Any]]) -> AfterValidator:
    """For a value that must fit into the X-MSYS-API header that `document` makes of it."""

    def fitting(value: Any) -> Any:
        try:
            smtp_api.field(smtp_api.known(document(value)))
        except smtp_api.SmtpApiError as error:
            raise ValueError(f"SparkPost would refuse it: {error}") from None
        return value

    return AfterValidator(fitting)


def default_hostname() -> str:
    """This host's name if it is a full one, else a name that is at least valid in EHLO."""
    name = socket.gethostname()
    try:
        return addresses.parse_domain(name) if "." in name else "localhost.localdomain"
    except ValueError:
        return "localhost.localdomain"


Duration = Annotated[float, BeforeValidator(units.parse_duration), PlainSerializer(units.format_duration)]
Timeout = Annotated[Duration, AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(units.parse_size), PlainSerializer(units.format_size)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Name = Annotated[str, PlainValidator(_name)]
CredentialName = Annotated[str, PlainValidator(_credential_name)]
Domain = Annotated[str, PlainValidator(addresses.parse_domain)]
EhloName = Annotated[str, PlainValidator(addresses.parse_ehlo_name)]
ApiUrl = Annotated[str, PlainValidator(addresses.parse_api_url)]
Host = Annotated[str, PlainValidator(addresses.parse_host)]
Network = Annotated[IPNetwork, PlainValidator(addresses.parse_network), PlainSerializer(str)]
TcpListenAddress = Annotated[TcpAddress, PlainValidator(_tcp_address), PlainSerializer(str)]
ListenAddress = Annotated[ListenerAddress, PlainValidator(_listener_address), PlainSerializer(str)]
SocketMode = Annotated[int, PlainValidator(listening.parse_mode), PlainSerializer(listening.format_mode)]
Uids = Annotated[tuple[int, ...], PlainValidator(_uids), PlainSerializer(lambda uids: uids if uids[1:] else uids[0])]
SecretValue = Annotated[Secret, PlainValidator(_secret), PlainSerializer(lambda secret: MASK)]
LoginPattern = Annotated[str, PlainValidator(addresses.parse_login_pattern)]
MailAddress = Annotated[str, PlainValidator(addresses.parse_mail_address)]
BounceAddress = Annotated[str, PlainValidator(_bounce_address)]
Askable = Annotated[str, PlainValidator(_askable)]
MailPattern = Annotated[str, PlainValidator(addresses.parse_mail_pattern)]
SpoolUrl = Annotated[str, PlainValidator(_spool_url)]
Subaccount = Annotated[int, PlainValidator(_subaccount)]
TlsVersion = Annotated[Literal["1.2", "1.3"], BeforeValidator(_tls_version)]


def setting(default: Any, meaning: str, *, alias: str | None = None) -> Any:
    """A key: its default as it would be written, and one line that says what it means."""
    return Field(default=default, description=meaning, validate_default=True, alias=alias)


def computed(default: Callable[[], Any], shown: str, meaning: str) -> Any:
    """A key whose default depends on the host; `shown` says what it is."""
    return Field(default_factory=default, description=meaning, json_schema_extra={"shown": shown})


class Section(BaseModel):
    """A mapping of the configuration. Errors never repeat the input: it may be a secret in the wrong place."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_by_name=True)


class ListenerTls(Section):
    mode: Literal["none", "starttls", "implicit"] = setting(
        "none", "none, starttls (offered), or implicit (from the start)"
    )
    certificate: Text | None = setting(None, "PEM file with the certificate and its chain")
    key: Text | None = setting(None, "PEM file with the private key, not encrypted")
    legacy: Flag = setting(False, "also take TLS 1.0 and 1.1, for old clients")
    allow_plain_auth: Flag = setting(False, "take AUTH without TLS from other hosts too: passwords in clear")


class Listener(Section):
    name: Name = setting("local", "what identities, logs and metrics call it; unique")
    address: ListenAddress = setting(
        "localhost:2525", "host:port, unix:/path, or fd:NAME for sockets of systemd's; localhost is 127.0.0.1 and ::1"
    )
    mode: SocketMode = setting("0660", "permissions of a unix:/path: who may write may connect")
    group: Text | None = setting(None, "group of a unix:/path; null for that of the relay's user")
    tls: ListenerTls = setting({}, "TLS towards applications")
    auth: Literal["none", "optional", "required", "passthrough"] = setting(
        "optional", "none, optional, required, or passthrough: the password is an API key"
    )
    networks: tuple[Network, ...] = setting(["127.0.0.0/8", "::1/128"], "who may connect over TCP")
    proxy_protocol: tuple[Network, ...] = setting([], "networks of the proxies, which must send the PROXY header")
    origin: Domain | None = setting(None, "domain for addresses that have none, which are refused otherwise")


class UpstreamTls(Section):
    ca_file: Text | None = setting(None, "PEM file of the authorities to trust instead of the system's")
    server_name: Host | None = setting(None, "name the certificate must have, if it is not the host's")
    minimum: TlsVersion = setting("1.2", "lowest TLS version: 1.2 or 1.3")


class Timeouts(Section):
    connect: Timeout = setting("10s", "to reach one port of one address")
    banner: Timeout = setting("60s", "for SparkPost's greeting")
    command: Timeout = setting("60s", "for the reply to a command")
    data_progress: Timeout = setting("60s", "longest time the content may stand still")
    final_dot: Timeout = setting("600s", "for the reply to the final dot (RFC 5321 4.5.3.2.6)")


class Http(Section):
    enabled: Flag = setting(False, "send by HTTPS when every SMTP port is blocked")
    url: ApiUrl = setting(
        "https://api.sparkpost.com/api/v1", "the Transmissions API; EU: https://api.eu.sparkpost.com/api/v1"
    )


class Upstream(Section):
    host: Host = setting("smtp.sparkpostmail.com", "SparkPost's SMTP host; EU: smtp.eu.sparkpostmail.com")
    ports: Annotated[tuple[Port, ...], AfterValidator(_not_empty)] = setting(
        [587, 2525], "ports in order of preference"
    )
    username: Text = setting("SMTP_Injection", "AUTH user name; a subaccount's suffix is appended to it")
    tls: UpstreamTls = setting({}, "TLS towards SparkPost; always on and always verified")
    connections: Count = setting(10, "connections to SparkPost at once, all logins together")
    recipients_per_transaction: Count = setting(100, "recipients of one transaction; more are sent in several")
    messages_per_connection: Count = setting(100, "messages before a connection is replaced")
    idle_timeout: Timeout = setting("50s", "idle time before a connection is closed")
    pipelining: Literal["full", "transaction", "off"] = setting(
        "full", "what leaves before it is answered: full (the next message too), transaction, or off"
    )
    fallback_after: Timeout = setting("2s", "how long a port may stay silent before the next is tried beside it")
    timeouts: Timeouts = setting({}, "limits of each phase")
    http: Http = setting({}, "HTTPS as the last resort")


class CredentialHttp(Section):
    url: ApiUrl | None = setting(None, "the API of this account, if not upstream.http.url")


class CredentialUpstream(Section):
    host: Host | None = setting(None, "this account's SMTP host, if not upstream.host")
    ports: Annotated[tuple[Port, ...], AfterValidator(_not_empty)] | None = setting(
        None, "its ports, if not upstream.ports"
    )
    username: Text | None = setting(None, "its AUTH user name, if not upstream.username")
    http: CredentialHttp = setting({}, "its HTTPS endpoint")


class Credential(Section):
    api_key: SecretValue = Field(description="a SparkPost API key with the permission Send via SMTP")
    upstream: CredentialUpstream = setting({}, "where this key is valid, if it belongs to another account")


class Match(Section):
    login: LoginPattern | None = setting(None, "login name, with * and ?; {subaccount} captures a number")
    listener: Name | None = setting(None, "name of the listener the application connected to")
    network: Network | None = setting(None, "network of the application's address")
    uid: Uids | None = setting(None, "user id of the application on a Unix socket; a list for several")
    mail_from: MailPattern | None = setting(None, "reverse-path, with * and ?; <> is the null reverse-path")


class SparkPostOptions(Section):
    transactional: Flag | None = setting(None, "transactional mail: needed by the recipient, not marketing")
    campaign_id: Annotated[Text, _asked(lambda value: {"campaign_id": value})] | None = setting(
        None, "campaign that reports show the mail under, at most 64 bytes"
    )
    tags: Annotated[tuple[Text, ...], _asked(lambda value: {"tags": list(value)})] = setting(
        [], "tags that reports show the mail under"
    )
    metadata: Annotated[Mapping[str, Any], _asked(lambda value: {"metadata": value})] = setting(
        {}, "what SparkPost's events about the mail repeat"
    )
    open_tracking: Flag | None = setting(None, "tell when the mail is opened; null for the account's own setting")
    click_tracking: Flag | None = setting(None, "tell when its links are used; null for the account's own setting")
    ip_pool: Annotated[Text, _asked(lambda value: {"options": {"ip_pool": value}})] | None = setting(
        None, "pool of IP addresses that SparkPost sends it from"
    )
    accept: tuple[Askable, ...] = setting(
        [
            *("campaign_id", "metadata", "tags", "options.open_tracking", "options.click_tracking"),
            *("options.transactional", "options.inline_css"),
        ],
        "what an application's own X-MSYS-API may set",
    )


class IdentityLimits(Section):
    messages_per_minute: Count | None = setting(None, "messages in any 60 seconds; null for no limit")
    messages_per_day: Count | None = setting(None, "messages in any 24 hours, counted in memory; null for no limit")
    max_recipients: Count = setting(1000, "recipients of one message")


class Identity(Section):
    name: Name = setting("default", "what logs, metrics and explain call it; unique")
    match: Match = setting({}, "when it applies: all that is given must hold; nothing given matches everything")
    password: SecretValue | None = setting(
        None, "password of match.login, or its argon2 hash (hash-password makes one)"
    )
    credential: CredentialName = setting("default", "name of the credential that sends its mail")
    subaccount: Subaccount | None = setting(None, "SparkPost subaccount to send for")
    senders: tuple[MailPattern, ...] = setting([], "addresses it may send from; none given allows all")
    delivery: Literal["cut-through", "queue"] = setting("cut-through", "cut-through (SparkPost's own answer) or queue")
    cut_through_deadline: Timeout | None = setting(None, "its own delivery.cut_through_deadline")
    max_age: Timeout | None = setting(None, "its own delivery.max_age")
    sparkpost: SparkPostOptions = setting({}, "SparkPost options of its mail")
    limits: IdentityLimits = setting({}, "its own limits")


class Retry(Section):
    first: Timeout = setting("5s", "wait before the first retry")
    factor: Annotated[float, Field(strict=True, ge=1)] = setting(2, "each wait is this much longer than the one before")
    max: Timeout = setting("30m", "longest wait")
    jitter: Annotated[float, Field(strict=True, ge=0, lt=1)] = setting(0.2, "share of chance in each wait")


class Bounces(Section):
    from_: MailAddress | None = setting(
        None, "From of bounce messages, on a verified domain; null for none", alias="from"
    )
    to: BounceAddress = setting("sender", "who gets them: sender (the reverse-path), or an address")


class Delivery(Section):
    cut_through_deadline: Timeout = setting("4s", "how long an application waits for SparkPost to take its message")
    retry: Retry = setting({}, "schedule of the queue")
    max_age: Timeout = setting("3d", "age at which a queued message is given up")
    bounces: Bounces = setting({}, "bounce messages")
    keep_failed: Duration = setting("14d", "how long failed messages are kept")
    keep_delivered: Duration = setting("7d", "how long a line about a delivered message is kept")


class Spool(Section):
    url: SpoolUrl = setting(
        "sqlite:/var/lib/sparkpost-relay/spool.db",
        "sqlite:PATH of a file, or none: no storage, the application's own retry is the queue",
    )
    reserve: Size = setting("100MB", "free disk space below which no mail is taken")


class Limits(Section):
    message_size: Annotated[Size, Field(ge=1)] = setting("20MB", "largest message; SparkPost takes 20MB")
    connections: Count = setting(500, "client connections at once, all listeners together")
    connections_per_client: Count = setting(100, "client connections at once from one address")
    recipients: Count = setting(1000, "recipients of one message")
    line_length: Annotated[Size, Field(ge=1000)] = setting("100KB", "longest line of a message; at least 1000 octets")
    command_timeout: Timeout = setting("300s", "how long a client may stay silent (RFC 5321 4.5.3.2.7)")
    auth_failures: Count = setting(10, "failed logins of one client with one login before its AUTH is closed")
    auth_ban: Timeout = setting("10m", "within which they count, and for how long AUTH is closed then")
    data_memory: Size = setting("64MB", "memory for message content, all clients together")


class Admin(Section):
    address: TcpListenAddress | None = setting(
        "127.0.0.1:9025", "where health, metrics and status are served; null for nowhere"
    )
    socket: Text | None = setting(None, "path of a Unix socket for the operator's commands")
    token: SecretValue | None = setting(None, "token that opens messages and actions over TCP")


class Log(Section):
    format: Literal["auto", "console", "json"] = setting(
        "auto", "console, json, or auto: console on a terminal, else json"
    )
    level: Literal["debug", "info", "warning", "error"] = setting("info", "debug, info, warning or error")
    addresses: Literal["plain", "masked", "hashed"] = setting(
        "plain", "mail addresses in the log: plain, masked or hashed"
    )


class Config(Section):
    hostname: EhloName = computed(
        default_hostname,
        "the host's full name, else localhost.localdomain",
        "what the relay calls itself in greeting, EHLO and Received",
    )
    listeners: Annotated[tuple[Listener, ...], AfterValidator(_not_empty)] = setting([{}], "where applications connect")
    upstream: Upstream = setting({}, "SparkPost")
    credentials: Mapping[CredentialName, Credential] = setting(
        {}, "API keys by name; the one named default is used first"
    )
    identities: tuple[Identity, ...] = setting([], "who sends what as whom; the first match wins")
    delivery: Delivery = setting({}, "how messages are handed over")
    spool: Spool = setting({}, "durable storage")
    drain_timeout: Duration = setting("8s", "how long messages in flight may take after a signal to stop")
    limits: Limits = setting({}, "limits towards applications")
    admin: Admin = setting({}, "health, metrics and commands")
    log: Log = setting({}, "the log")
