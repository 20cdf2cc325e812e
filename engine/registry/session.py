"""A session with one endpoint: signed in as it asks, repeated as far as that helps.

Tokens are kept a scope, renewed before they end, and fetched once however many threads want one.
Leaves which endpoint to ask to engine.registry.client.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from engine.errors import RegistryUnauthorized
from engine.registry import failures
from engine.registry.auth import (
    Challenge,
    Token,
    choose_challenge,
    parse_challenges,
    read_token,
    token_form,
    token_query,
)
from engine.registry.endpoints import Endpoint
from engine.registry.failures import Failure
from engine.registry.transport import Answer, Body, Transport, same_origin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to wait. Seconds; each wait doubles, and a fifth of it is chance.

    `patience`: the longest Retry-After that is waited for; a longer one is an error at once.
    """

    attempts: int = 4
    first: float = 0.25
    longest: float = 8.0
    patience: float = 20.0

    def delay(self, attempt: int, after: float | None) -> float | None:
        """Before attempt number `attempt` + 1 (from 1); None: give up."""
        if attempt >= self.attempts or (after is not None and after > self.patience):
            return None
        wait = min(self.longest, self.first * (1 << (attempt - 1)))
        return max(after or 0.0, wait * random.uniform(0.8, 1.2))


@dataclass(frozen=True, slots=True)
class Request:
    """One call: `rest` of `path`, or `url` where an answer has named it. `body` is opened anew for
    each try and closed; `actions` and `also` (other repositories to read) are what a sign-in asks
    for. `subject` is what an error speaks of."""

    method: str
    path: str
    rest: str
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Body] | None = None
    actions: str = "pull"
    also: str = ""
    url: str = ""
    once: bool = False


class Session:
    """Thread safe."""

    def __init__(self, endpoint: Endpoint, transport: Transport, policy: RetryPolicy) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self._transport = transport
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}

    def get(
        self,
        path: str,
        rest: str,
        subject: str,
        headers: Mapping[str, str],
    ) -> Answer:
        """The answer (2xx) to a GET of `rest` in repository `path`; the body is the caller's."""
        return self._repeat(Request("GET", path, rest, subject, headers), lambda answer: answer)

    def read(
        self, path: str, rest: str, subject: str, headers: Mapping[str, str], limit: int
    ) -> tuple[Answer, bytes]:
        """The same with the body, of which at most `limit` + 1 bytes are read."""
        request = Request("GET", path, rest, subject, headers)
        return self._repeat(request, lambda answer: (answer, answer.body(limit)))

    def call(self, request: Request) -> Answer:
        """The answer (2xx) to any call, its body read. Repeated as a GET is, unless `once`."""

        def read(answer: Answer) -> Answer:
            answer.body()
            return answer

        return self._repeat(request, read)

    def pause(self, seconds: float) -> None:
        """Raises Cancelled after the client's `abort`."""
        self._transport.pause(seconds)

    def check_address(self, before: str, after: str) -> None:
        """An answer sends us from `before` to `after`. Raises RegistryUnavailable where that is
        not to be followed."""
        self._transport.check_redirect(self.endpoint, before, after)

    def _repeat(self, request: Request, take: Callable[[Answer], T]) -> T:
        """Raises RegistryError's kinds, PolicyDenied, Cancelled."""
        for attempt in count(1):
            outcome = self._attempt(request)
            if isinstance(outcome, Answer):
                try:
                    return take(outcome)
                except (HTTPError, OSError) as error:
                    self._transport.pause(0)
                    outcome = failures.of_connection(self.endpoint, error)
            again = outcome.again and not request.once
            delay = self.policy.delay(attempt, outcome.after) if again else None
            if delay is None:
                raise outcome.error
            self._transport.pause(delay)
        raise AssertionError("count() does not end")

    def _attempt(self, request: Request) -> Answer | Failure:
        url = request.url or self.endpoint.url(request.path, request.rest)
        subject = request.subject
        scope = ""
        if request.path:
            scope = f"repository:{self.endpoint.repository(request.path)}:{request.actions}"
        if request.also:
            scope += f" repository:{self.endpoint.repository(request.also)}:pull"
        known = self._known(scope)
        outcome = self._carry(request, url, known)
        if isinstance(outcome, Answer) and outcome.status == 401 and not outcome.foreign:
            # Only the endpoint itself may ask for a sign-in, not where it redirected to.
            challenge = choose_challenge(parse_challenges(outcome.challenges()))
            try:
                signed = self._sign_in(challenge, scope, subject, known) if challenge else None
            except BaseException:
                outcome.close()
                raise
            if isinstance(signed, Failure):
                outcome.close()
                return signed
            if signed is not None:
                outcome.body()
                known = signed
                outcome = self._carry(request, url, known)
        if isinstance(outcome, Failure) or 200 <= outcome.status < 300:
            return outcome
        return self._failure(outcome, subject)

    def _carry(self, request: Request, url: str, authorization: str) -> Answer | Failure:
        if not same_origin(url, self.endpoint.url("", "")):
            authorization = ""  # an upload elsewhere carries its right in its address
        if request.body is None:
            return self._send(request.method, url, request.headers, authorization)
        with closing(request.body()) as body:
            return self._send(request.method, url, request.headers, authorization, body)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str,
        body: bytes | Body | None = None,
    ) -> Answer | Failure:
        signed = {**headers, **({"Authorization": authorization} if authorization else {})}
        try:
            return self._transport.send(self.endpoint, method, url, signed, body)
        except (HTTPError, OSError) as error:
            self._transport.pause(0)  # broken because it was aborted: say that instead
            return failures.of_connection(self.endpoint, error)

    def _failure(self, answer: Answer, subject: str) -> Failure:
        try:
            body = answer.body()
        except (HTTPError, OSError) as error:
            return failures.of_connection(self.endpoint, error)
        return failures.of_answer(
            self.endpoint,
            subject,
            answer.status,
            answer.headers,
            body,
            signed_in=self.endpoint.credentials is not None,
        )

    def _known(self, scope: str) -> str:
        with self._lock:
            header, ends = self._tokens.get(scope, ("", 0.0))
            return header if time.monotonic() < ends else ""

    def _sign_in(
        self, challenge: Challenge, scope: str, subject: str, refused: str
    ) -> str | Failure | None:
        """The Authorization to try next; None where there is nothing (more) to try."""
        with self._lock:
            header, ends = self._tokens.get(scope, ("", 0.0))
            if header not in ("", refused) and time.monotonic() < ends:
                return header  # another thread was asked the same and has signed in meanwhile
            if challenge.scheme == "bearer":
                outcome = self._fetch_token(challenge, scope, subject)
                if isinstance(outcome, Failure):
                    return outcome
                self._tokens[scope] = (outcome.header, time.monotonic() + outcome.lifetime)
                return outcome.header
            if self.endpoint.credentials is None:
                return None
            header = self.endpoint.credentials.basic()
            if header == refused:
                return None
            self._tokens[scope] = (header, float("inf"))
            return header

    def _fetch_token(self, challenge: Challenge, scope: str, subject: str) -> Token | Failure:
        realm = challenge.get("realm")
        parts = urlsplit(realm)
        sound = parts.scheme == "https" or (
            parts.scheme == "http" and self.endpoint.scheme == "http"
        )
        if not sound or not parts.hostname:
            # Without TLS a password for a TLS registry would go in the clear.
            return Failure(
                RegistryUnauthorized(
                    f"{self.endpoint} wants a sign-in at {realm[:200] or 'no address'},"
                    " which is not https",
                    hint="tell who runs this registry",
                    registry=str(self.endpoint),
                )
            )
        credentials = self.endpoint.credentials
        if credentials and credentials.identity_token:
            form = token_form(challenge, scope, credentials.identity_token)
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            outcome = self._send("POST", realm, kind, "", form)
        else:
            query = token_query(challenge, scope)
            url = f"{realm}{'&' if parts.query else '?'}{query}"
            outcome = self._send("GET", url, {}, credentials.basic() if credentials else "")
        if isinstance(outcome, Failure):
            return outcome
        if outcome.status != 200:
            return self._failure(outcome, subject)
        try:
            return read_token(outcome.body(), realm)
        except (HTTPError, OSError) as error:
            return failures.of_connection(self.endpoint, error)
