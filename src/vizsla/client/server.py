"""A server that is spoken to by REST: its address, a token, and what becomes of its answers."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import TypeAdapter, ValidationError

from vizsla.errors import InvalidInput, NotSignedIn, Unavailable, VizslaError, from_dict

if TYPE_CHECKING:
    import httpx

Parsed = TypeVar("Parsed")

API = "/api/v1"
SESSION = ("session",)
CONNECT_S, ANSWER_S = 10.0, 60.0
# As long as a server that is started again may take until it answers.
PATIENCE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
PAGE = 200
# What a proxy says while the server behind it is away.
AWAY = (502, 503, 504)
NO_CONTENT = 204
SHORT = 300
PROBLEM = "application/problem+json"
# What a `Workspace` has and a server has not.
OF_WORKSPACES = frozenset(
    ("root", "store", "network_folders", "user", "role", "keep_free_bytes", "require_space", "folder", "is_finished")
)

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


class Away(Unavailable):
    """The server does not answer, for now or for good."""

    heard = False
    """whether it may have got the request"""


class HereOnly(InvalidInput, AttributeError):
    """This takes a workspace and was given a server. For `hasattr`, a server does not have it."""


@dataclass(frozen=True)
class Person:
    """Who has signed in, and what they prove it with once more where a server asks for that."""

    name: str
    password: str = field(repr=False)


class Server:
    """A workspace that a server has; the verbs take it as their first argument. Made by `vizsla.connect`.

    Close it when done, or use it in a `with` statement.
    """

    def __init__(
        self, url: str, token: str | None = None, *, account: str | None = None, password: str | None = None
    ) -> None:
        """See `vizsla.connect`."""
        if (account is None) != (password is None) or (token is not None and account is not None):
            raise InvalidInput(
                "Who asks is proved by a token, or by an account with its password.",
                where="account",
                remedy="Give one.",
            )
        self.url = base_of(url)
        """without /api/v1"""
        self.person: Person | None = None
        """who has signed in with a password"""
        self._client = _client(self.url, token, signs_in=account is not None)
        self._has_answered = False
        if account is not None and password is not None:
            try:
                self.sign_in(account, password)
            except BaseException:
                self._client.close()
                raise

    def __repr__(self) -> str:
        return f"Server({self.url!r})"  # the token is nobody's business

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # else no wrong name would be noticed

        def __getattr__(self, name: str) -> Any:
            """Refuse what a verb asks of a workspace only, in words for its caller."""
            if name in OF_WORKSPACES:
                raise HereOnly(
                    "This cannot be asked of a server.",
                    where=self.url,
                    remedy="Use vizsla.open on the machine that has the workspace.",
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def close(self) -> None:
        """End the session, if there is one, forget the password, and close the connections."""
        person, self.person = self.person, None
        try:
            if person is not None:
                with contextlib.suppress(VizslaError):  # it has ended, or does so by itself
                    self._ask("DELETE", SESSION, patience_s=0)
        finally:
            self._client.close()

    def sign_in(self, name: str, password: str) -> None:
        """Begin a session, which proves who asks from now on.

        Raises:
            NotSignedIn: name and password do not belong together.
            Conflict: the server has no accounts.
            TooMany: it was tried too often.
        """
        self.post(*SESSION, body={"name": name, "password": password})
        self.person = Person(name, password)

    def confirmed(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body with the password of who has signed in, for what takes it once more."""
        return body if self.person is None else body | {"current_password": self.person.password}

    def place(self, *parts: str) -> str:
        """The address of what lies at a path, given by its parts."""
        return "/".join((self.url + API, *(quote(part, safe="") for part in parts)))

    def get(self, *parts: str, patience_s: float = PATIENCE_S, **query: Any) -> Any:
        """What there is at a path, given by its parts; a `query` of None is left out.

        A server that has answered once, and is away, is asked again for `patience_s`: it may be about to start again.

        Raises:
            VizslaError: what the server refuses it with.
            Away: it does not answer.
        """
        return self._ask("GET", parts, patience_s=patience_s, params=_given(query))

    def lines(self, *parts: str, **query: Any) -> list[Any]:
        """What there is at a path that answers a JSON document a line; otherwise as `get`."""
        found: list[Any] = self._ask("GET", parts, parse=_lines, params=_given(query))
        return found

    def post(self, *parts: str, body: Any = None, keyed: bool = False, patience_s: float = PATIENCE_S) -> Any:
        """Ask that something be made or done.

        Args:
            keyed: the request has a key, by which a server that has done it knows it again; so it is sent again where
                the answer was lost.

        Raises:
            VizslaError: what the server refuses it with.
            Away: it does not answer; whether it was done is not known where the message says so.
        """
        key = {"Idempotency-Key": str(uuid.uuid4())} if keyed else {}
        return self._ask("POST", parts, patience_s=patience_s, json=body, headers=key)

    def patch(self, *parts: str, body: Any) -> Any:
        """Ask that something be changed; errors as those of `post`."""
        return self._ask("PATCH", parts, json=body)

    def send(self, method: str, *parts: str, data: bytes, headers: dict[str, str] | None = None) -> Any:
        """Send bytes by a method; errors as those of `post`."""
        return self._ask(method, parts, content=data, headers=headers or {})

    def delete(self, *parts: str, **query: Any) -> Any:
        """Ask that something be deleted; errors as those of `post`."""
        return self._ask("DELETE", parts, params=_given(query))

    def newest(self, *parts: str, limit: int | None, **query: Any) -> list[Any]:
        """All things of a list that `query` wants, or the newest `limit`, oldest first."""
        if limit is None:
            return list(self.pages(*parts, order="asc", **query))
        return list(islice(self.pages(*parts, size=min(limit, PAGE), **query), limit))[::-1]

    def pages(self, *parts: str, size: int = PAGE, **query: Any) -> Iterator[Any]:
        """All items of a list, page by page of `size`."""
        after: str | None = None
        while True:
            page = self.get(*parts, **query, limit=size, after=after)
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def _ask(
        self,
        method: str,
        parts: tuple[str, ...],
        *,
        patience_s: float = PATIENCE_S,
        parse: Callable[[httpx.Response], Any] | None = None,
        **request: Any,
    ) -> Any:
        deadline = time.monotonic() + (patience_s if self._has_answered else 0.0)
        pause_s = FIRST_PAUSE_S
        # A request with a key is not done twice, however often it is sent.
        again = method == "GET" or "Idempotency-Key" in request.get("headers", {})
        person = self.person if parts != SESSION else None
        while True:
            try:
                response = self._ask_once(method, parts, request)
                break
            except NotSignedIn:  # nothing was done: the session has ended, as after a change of the password elsewhere
                if person is None:
                    raise
                self.sign_in(*astuple(person))
                person = None
                continue
            except Away as away:
                if not (again or not away.heard) or time.monotonic() + pause_s > deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        try:
            return (parse or _json)(response)
        except ValueError:
            raise self._no_server(response.status_code) from None

    def _ask_once(self, method: str, parts: tuple[str, ...], request: dict[str, Any]) -> httpx.Response:
        import httpx

        try:
            response = self._client.request(method, self.place(*parts), **request)
        except httpx.RequestError as error:
            raise self._away(error) from None
        if response.status_code in AWAY and _problem(response) is None:
            raise Away(f"The server behind the proxy is away: HTTP {response.status_code}.", where=self.url)
        self._has_answered = True
        if not response.is_success:
            raise self._refusal(response, signing_in=parts == SESSION)
        return response

    def _away(self, error: httpx.RequestError) -> VizslaError:
        import httpx

        reason = (str(error) or type(error).__name__).rstrip(".")[:SHORT]
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            remedy = "SSL_CERT_FILE names a file of the certificates that are trusted, where the system's will not do."
            return Unavailable(f"The server's certificate is not trusted: {reason}.", where=self.url, remedy=remedy)
        remedy = "See whether `vizsla serve` runs there, and whether the address is right."
        what = f"The server does not answer: {reason}."
        heard = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if heard:
            what += " Whether it has done what it was asked is not known."
        away = Away(what, where=self.url, remedy=remedy)
        away.heard = heard
        return away

    def _refusal(self, response: httpx.Response, *, signing_in: bool) -> VizslaError:
        if response.is_redirect:
            target = response.headers.get("location", "")[:SHORT]
            return Unavailable(
                f"The server sends its callers elsewhere: {target}.", where=self.url, remedy="Give that address."
            )
        problem = _problem(response)
        if problem is None:
            return self._no_server(response.status_code)
        if problem.get("kind") == NotSignedIn.kind and not signing_in:
            problem["remedy"] = (
                f"`vizsla login {self.url}` keeps a token for commands; `vizsla.connect` takes one."
                if self.person is None
                else "Sign in again, in Python by `vizsla.connect` with account and password, commands by --as NAME."
            )
        return from_dict({name: str(problem.get(name, "")) for name in ("kind", "what", "where", "remedy")})

    def _no_server(self, status: int) -> VizslaError:
        what = f"What answers there is no Vizsla server (HTTP {status})."
        return Unavailable(what, where=self.url, remedy="Check the address.")


def _json(response: httpx.Response) -> Any:
    return None if response.status_code == NO_CONTENT else response.json()


def _given(query: dict[str, Any]) -> dict[str, Any]:
    """What is None is left to the server."""
    return {name: value for name, value in query.items() if value is not None}


def _lines(response: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in response.iter_lines()]


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The problem details of an answer, with `what` as errors have it."""
    if response.headers.get("content-type", "").partition(";")[0] != PROBLEM:
        return None
    try:
        found = response.json()
    except ValueError:
        return None
    return {**found, "what": found.get("detail", "")} if isinstance(found, dict) else None


def base_of(url: str) -> str:
    """The address of a server as it is kept: without /api/v1 and the slash at its end.

    Raises:
        InvalidInput: this is no such address.
    """
    remedy = "Write it like https://vizsla.example.org, or http://127.0.0.1:5000 for one on this machine."
    try:
        parts = urlsplit(url)
        hostname, _ = parts.hostname, parts.port
    except ValueError:
        hostname = None
    if not hostname or parts.scheme not in ("http", "https") or parts.query or parts.fragment or not url.isprintable():
        raise InvalidInput("This is not the address of a server.", where=url[:SHORT], remedy=remedy)
    if parts.username is not None or parts.password is not None:
        # Not shown: it holds a secret.
        raise InvalidInput("The address of a server holds no names or passwords.", where="URL", remedy=remedy)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/").removesuffix(API).rstrip("/")


def _client(url: str, token: str | None, *, signs_in: bool) -> httpx.Client:
    import httpx

    parts = urlsplit(url)
    here = _is_loopback(parts.hostname or "")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise InvalidInput("This cannot be a token.", where="token", remedy="Give it as the server gave it.")
    if (token is not None or signs_in) and parts.scheme == "http" and not here:
        raise InvalidInput(
            f"A {'password' if signs_in else 'token'} is not sent without encryption to another machine.",
            where=url,
            remedy="Use https://, or reach that machine by ssh -L.",
        )
    return httpx.Client(
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        # The certificates that the system trusts, or those of SSL_CERT_FILE.
        verify=ssl.create_default_context(),
        # A proxy has no business with what stays on this machine.
        trust_env=not here,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parsed(kind: type[Parsed], content: Any) -> Parsed:
    """An answer as the type that the verb returns.

    Raises:
        Unavailable: it does not look as this version expects.
    """
    try:
        found: Parsed = _adapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise Unavailable(
            f"The server's answer cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            remedy="Use the same version of Vizsla here and there.",
        ) from None
    return found
