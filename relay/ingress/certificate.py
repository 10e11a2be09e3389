"""The certificate of a listener, as it is on the disk: one that is renewed there is what new connections get.

Tools that renew write the certificate and its key one after the other, or swap one link and then another. So files that
have changed are left alone until they have been the same for two looks, and a pair that will not do leaves the one in
use as it was. One that cannot be read, as while no descriptors are left, is tried again at each look and told of once.
Connections that are there keep what they have. A pipe is read once, at the start.
"""

import datetime
import ssl

import structlog

from relay.config import ListenerTls
from relay.config.certificates import LEGACY_CIPHERS, examine_pair
from relay.config.rotation import Signature, signature_of
from relay.config.secrets import is_stream
from relay.observe import log as events

log = structlog.get_logger()


class ServerTls:
    """The server side of TLS as a listener's section says; the configuration has been checked to load.

    `context` is for the next connection.
    """

    def __init__(self, listener: str, section: ListenerTls) -> None:
        assert section.certificate is not None
        assert section.key is not None
        self._listener = listener
        self._certificate, self._key = section.certificate, section.key
        self._legacy = section.legacy
        self._seen = self._signatures()  # before the files are read: a change meanwhile is seen next time
        self._settled = self._seen  # what has been read, for good or ill
        self._told: str | None = None  # the problem with what is seen
        self.context = self._load()

    def look(self) -> None:
        """Take what has been renewed since the last look, if it has come to rest."""
        before, self._seen = self._seen, self._signatures()
        if self._seen != before:
            self._told = None
        elif self._seen != self._settled and (self._streams() or self._renewed()):
            self._settled = self._seen

    def _streams(self) -> bool:
        return is_stream(self._certificate) or is_stream(self._key)

    def _renewed(self) -> bool:
        """Take the pair, or leave it; False if it could not be read."""
        now = datetime.datetime.now(datetime.UTC)
        flaw = examine_pair(self._certificate, self._key, now, legacy=self._legacy)
        problem = None if flaw is None else flaw.text
        unread = flaw is not None and flaw.unread
        if flaw is None or not flaw.fatal:
            try:
                self.context = self._load()
            except OSError as error:  # it has changed again; ssl.SSLError is one
                problem = f"{self._certificate} cannot be used: {error.strerror or error}"
                unread = not isinstance(error, ssl.SSLError)
            else:
                tell = log.info if problem is None else log.warning
                tell(events.CONFIG_RELOADED, listener=self._listener, certificate=self._certificate, problem=problem)
                return True
        problem = f"the certificate stays as it was: {problem}"
        if problem != self._told:
            self._told = problem
            log.error(events.CONFIG_RELOADED, listener=self._listener, certificate=self._certificate, problem=problem)
        return not unread

    def _signatures(self) -> tuple[Signature, Signature]:
        return signature_of(self._certificate), signature_of(self._key)

    def _load(self) -> ssl.SSLContext:
        """Raises OSError; a key that wants a passphrase is one that nobody is asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._legacy:
            # OpenSSL 3 has TLS 1.0 and 1.1 at security level 0 alone: their handshakes are signed over SHA-1 and MD5.
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.options |= ssl.OP_NO_SSLv3
            context.set_ciphers(LEGACY_CIPHERS)
        else:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password="")
        return context
