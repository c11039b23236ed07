"""Where the tokens of SASL OAUTHBEARER come from; the client asks for one per connection."""

import asyncio
import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from agents.core.errors import ConfigurationError
from streams.secret_files import read_secret

FETCH_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024
# The rest is for the way to the broker, and for clocks that differ.
USED_PART_OF_LIFE = 0.8


TokenProvider = AbstractTokenProvider


class TokenError(KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """No token is to be had; a `KafkaError`, so that a client that runs tries again by itself."""


@dataclass(frozen=True)
class GivenToken(AbstractTokenProvider):  # type: ignore[misc]  # as above
    """A token that was given and stays.

    Attributes:
        secret: The token.
    """

    secret: SecretStr

    async def token(self) -> str:
        """Give the token."""
        return self.secret.get_secret_value()


@dataclass(frozen=True)
class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # as above
    """A token in a file that someone else keeps fresh, as Kubernetes does; so it is read each time.

    Attributes:
        path: The file.
        variable: The setting that named it.
    """

    path: Path
    variable: str

    async def token(self) -> str:
        """Give what the file holds now.

        Raises:
            TokenError: If it cannot be read.
        """
        try:
            return await asyncio.to_thread(read_secret, self.path, self.variable)
        except ConfigurationError as error:
            raise TokenError(str(error)) from None


@dataclass(eq=False)
class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # as above
    """Tokens that a server gives for an id and a secret (OAuth 2.0's client credentials, RFC 6749, 4.4).

    Attributes:
        url: The server's token endpoint.
        client_id: Who asks.
        client_secret: Its proof.
        scope: What to ask for; none: what the server gives by itself.
    """

    url: str
    client_id: str
    client_secret: SecretStr
    scope: str | None = None
    _token: SecretStr | None = field(default=None, init=False, repr=False)
    _renew_at: float = field(default=0.0, init=False, repr=False)
    _fetching: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def token(self) -> str:
        """Give a token that is good for a while; asks for another one only when most of its life is over.

        Raises:
            TokenError: If the server gives none.
        """
        async with self._fetching:
            now = time.monotonic()
            if self._token is None or now >= self._renew_at:
                fresh, seconds = await asyncio.to_thread(self._fetch)
                self._token, self._renew_at = fresh, now + seconds * USED_PART_OF_LIFE
            return self._token.get_secret_value()

    def _fetch(self) -> tuple[SecretStr, float]:
        # RFC 6749 wants both form-encoded before they are joined (2.3.1).
        quoted = [
            urllib.parse.quote_plus(it) for it in (self.client_id, self.client_secret.get_secret_value())
        ]
        wanted = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        request = urllib.request.Request(  # noqa: S310 (settings allow https, and http on this machine)
            self.url,
            urllib.parse.urlencode(wanted).encode(),
            {
                "Authorization": f"Basic {base64.b64encode(':'.join(quoted).encode()).decode()}",
                "Accept": "application/json",
            },
        )
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=FETCH_SECONDS) as answer:
                content = answer.read(MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            error.close()
            raise TokenError(
                f"{self.url} gives no token for client {self.client_id!r}: it answers with status"
                f" {error.code}; check CALLBOARD_OAUTH_CLIENT_ID, CALLBOARD_OAUTH_CLIENT_SECRET and"
                " CALLBOARD_OAUTH_SCOPE"
            ) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise TokenError(f"CALLBOARD_OAUTH_TOKEN_URL {self.url} cannot be reached: {reason}") from None
        try:
            told: Any = json.loads(content)
            return SecretStr(str(told["access_token"])), float(told.get("expires_in", 0))
        except (ValueError, KeyError, TypeError):
            # Whatever it is, it may hold a token: not a word of it.
            raise TokenError(f"{self.url} answers with something that is no token in JSON") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Does not follow: the secret was meant for the address that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None
