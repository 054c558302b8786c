"""A thin client of Keycloak's Admin REST API, version 1: the few requests that `plan` and `apply` make.

Every answer is bounded in time and size. A client with ``view-clients`` can read every client secret of the realm, so nobody keeps an
answer: see `s2s_fastapi.operations.snapshot`, which takes the fields that it knows and drops the rest.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from s2s_fastapi.backchannel.client_certificate import trusting
from s2s_fastapi.backchannel.deadline import Deadline, DeadlineTransport
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.granted import claims_of
from s2s_fastapi.errors import ConfigurationError, S2SError
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.text import named, printable

__all__ = ["VARIABLES", "AdminApi", "AdminConflict", "AdminError", "AdminForbidden", "AdminTarget"]

_ADMIN: Final = "KEYCLOAK_ADMIN_"
_PLACE: Final = ("url", "public_url", "issuer", "auth_path", "realm", "ca_file", "proxy")
_ADDRESS: Final = ("url", "public_url", "issuer", "auth_path")
"""Those of the place that say where the server is."""
_LOGIN: Final = ("client_id", "client_secret", "client_secret_file", "client_key_file", "client_auth")
VARIABLES: Final = tuple(f"{_ADMIN}{name.upper()}" for name in (*_LOGIN, "realm"))
"""The variables of the admin client."""
_PAGE: Final = 100
_MOST_ENTRIES: Final = 100_000
_LIMIT: Final = 32 * 1024 * 1024
_SECONDS: Final = 60.0
_SHOWN: Final = 200
_OK: Final = range(200, 300)
_CREATED: Final = 201
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_OR_ANOTHER: Final = "; or log in as the client that is meant for apply (KEYCLOAK_ADMIN_CLIENT_ID)"
"""The client of the planner shall not get the right to change a realm."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_NEWEST: Final = "26.7.3"
_OLDEST: Final = "26.0.8"
_EMBEDDED: Final = "s2s-fastapi embedded issuer"
"""How the header ``Server`` of the embedded issuer begins."""
_NEW_FEATURE: Final = "TOKEN_EXCHANGE_STANDARD_V2"
"""A feature that servers from 26.2 on list, enabled or not, and 26.0 does not."""


class AdminError(ConfigurationError):
    """Keycloak's Admin API did not do what was asked. The sentence says what to change."""


class AdminForbidden(AdminError):
    """The admin client lacks a right."""


class AdminConflict(AdminError):
    """There is one already: somebody else made it since the realm was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminTarget:
    """Which realm of which server, and the client that logs in there."""

    server: str
    """The address without ``/realms/...``, with its path."""
    realm: str
    issuer: str
    login: KeycloakSettings = field(repr=False)
    """The admin client, in its own realm."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ, *, url: str = "", realm: str = "") -> Self:
        """Return the target that ``KEYCLOAK_URL``, ``KEYCLOAK_REALM`` and the ``KEYCLOAK_ADMIN_*`` variables name.

        - ``url`` and ``realm`` override the variables. With ``url``, no other variable says anything about the address.
        - The log-in belongs to the server that the variables name: it is never sent to another one that ``url`` names.
        - ``KEYCLOAK_ADMIN_REALM`` is the realm of the admin client, if it is another one.
        - The credentials of a service (``KEYCLOAK_CLIENT_*``) are never used.

        Raises:
            ConfigurationError: A variable is missing or malformed, or names another server than ``url``; the sentence names it.
        """
        place: dict[str, Any] = {
            name: environment[key] for name in _PLACE if (key := f"KEYCLOAK_{name.upper()}") in environment
        }
        if url:
            addresses = {name: place.pop(name) for name in _ADDRESS if name in place}
            servers = {name: address for name, address in addresses.items() if name != "auth_path"}
            if servers and _origin(url) not in map(_origin, servers.values()):
                variables = " and ".join(f"KEYCLOAK_{name.upper()}" for name in servers)
                raise ConfigurationError(
                    f"--url names another server than {variables}. The KEYCLOAK_ADMIN variables may be meant for that one, and"
                    f" are sent to no other: unset {variables}, or leave --url out."
                )
        place |= {name: value for name, value in (("url", url), ("realm", realm)) if value}
        if not place.keys() & {"url", "issuer"} or not place.keys() & {"realm", "issuer"}:
            raise ConfigurationError("Set KEYCLOAK_URL and KEYCLOAK_REALM (or write --url and --realm).")
        there = KeycloakSettings(**place)
        login = {name: environment[key] for name in _LOGIN if (key := f"{_ADMIN}{name.upper()}") in environment}
        if not login.get("client_id") or not login.keys() & {"client_secret", "client_secret_file", "client_key_file"}:
            raise ConfigurationError(
                "Set KEYCLOAK_ADMIN_CLIENT_ID and KEYCLOAK_ADMIN_CLIENT_SECRET_FILE (or KEYCLOAK_ADMIN_CLIENT_KEY_FILE with"
                " KEYCLOAK_ADMIN_CLIENT_AUTH=private_key_jwt): the client that may read, or change, the realm."
            )
        own = environment.get(f"{_ADMIN}REALM") or there.realm
        elsewhere = {} if own == there.realm else {"issuer": f"{there.issuer.rpartition('/realms/')[0]}/realms/{own}"}
        at = {"url": there.url, "auth_path": there.auth_path, "realm": own, "issuer": there.issuer, **elsewhere}
        files = {
            name: value for name, value in (("ca_file", there.ca_file), ("proxy", there.proxy)) if value is not None
        }
        return cls(
            server=there.server,
            realm=there.realm,
            issuer=there.issuer,
            login=KeycloakSettings(_env_prefix=_ADMIN, **at, **files, **login),
        )

    @property
    def unprotected(self) -> str:
        """Say that the way to the server is not encrypted; "" if it is, or ends on this machine."""
        url = httpx.URL(self.server)
        if url.scheme == "https" or url.host in _LOOPBACK:
            return ""
        return (
            f"{self.server} is plain http: everybody on the way can read the secret of the admin client and its tokens, and change the"
            " answers. Write https:// in KEYCLOAK_URL, unless the way is inside of one encrypted network."
        )


class AdminApi:
    """The Admin API of one realm. It closes its connections at the end of the block; it never follows a redirect."""

    def __init__(
        self,
        target: AdminTarget,
        *,
        token: Callable[[], str] | None = None,
        transport: httpx.BaseTransport | None = None,
        seconds: float = _SECONDS,
    ) -> None:
        """Take the target. ``token`` and ``transport`` replace the log-in and the network. ``seconds`` bounds each exchange as a whole."""
        self.target = target
        auth = ServiceTokenAuth(settings=target.login)
        self._token = token or auth.token
        self._refused = (lambda _: None) if token else auth.refused
        self._root = f"{target.server}/admin/realms/{quote(target.realm, safe='')}"
        proxy = target.login.proxy
        self._seconds = seconds
        self._deadline = Deadline(seconds)
        through = None if proxy is None else httpx.Proxy(proxy.get_secret_value())
        secure = target.server.startswith("https:") or (through is not None and through.url.scheme == "https")
        if transport is None:
            transport = DeadlineTransport(trusting(target.login.ca_file) if secure else None, self._deadline, through)
        self._http = httpx.Client(transport=transport, trust_env=False, timeout=seconds, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __repr__(self) -> str:
        return f"AdminApi({self._root!r})"

    # Reading

    def get(self, *path: str, needs: str, **query: object) -> Any:
        """Return the JSON of a page below the realm. ``needs`` is the right that the page takes.

        Raises:
            AdminForbidden: The admin client lacks the right.
            AdminError: There is no such page, or no readable answer.
        """
        return self._json(self._send("GET", path, needs=needs, query=query), path)

    def pages(self, *path: str, needs: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the objects of a long list, of which one page at a time is in memory. Only an empty page ends it."""
        first, seen = 0, set[str]()
        while True:
            found = self.get(*path, needs=needs, first=first, max=_PAGE, **query)
            if not isinstance(found, list):
                raise AdminError(f"Keycloak answered {self._shown(path)} with something else than a list.")
            if not found:
                return
            for one in found:
                if not isinstance(one, dict) or (key := str(one.get("id", ""))) in seen:
                    raise AdminError(
                        f"Keycloak answered {self._shown(path)} with an entry that is there twice, or is none: the list changed while it"
                        " was read, or a proxy does not pass the page's number on. Try again."
                    )
                seen.add(key)
                if len(seen) > _MOST_ENTRIES:
                    raise AdminError(
                        f"Keycloak answered {self._shown(path)} with more than {_MOST_ENTRIES} entries: no more are read. Check KEYCLOAK_URL."
                    )
                yield one
            first += len(found)

    def version(self) -> str:
        """Return the version of the server.

        Keycloak shows it to administrators of the realm master only. All others see the list of features, which tells 26.0 from later
        versions: then it is "26.0.8" or "26.7.3", the versions for which the realm model was measured.
        """
        answer = self._request("GET", f"{self.target.server}/admin/serverinfo", None, {})
        if answer.status_code not in _OK:
            return _NEWEST
        info = self._json(answer, ("serverinfo",))
        info = info if isinstance(info, dict) else {}
        if known := (info.get("systemInfo") or {}).get("version"):
            return str(known)
        profile = info.get("profileInfo") or {}
        listed = [*(profile.get("disabledFeatures") or ()), *(one.get("name") for one in info.get("features") or ())]
        return _NEWEST if not listed or _NEW_FEATURE in listed else _OLDEST

    # Writing

    def post(self, *path: str, needs: str, body: Any = None) -> str:
        """Send a POST, and return the id of what was made, if the answer names it.

        Raises:
            AdminConflict: There is one already.
            AdminForbidden, AdminError: As for `get`.
        """
        answer = self._send("POST", path, needs=needs, body=body)
        return str(answer.headers.get("Location", "")).rpartition("/")[2]

    def put(self, *path: str, needs: str, body: Any = None) -> None:
        """Send a PUT."""
        self._send("PUT", path, needs=needs, body=body)

    def delete(self, *path: str, needs: str, body: Any = None) -> None:
        """Send a DELETE."""
        self._send("DELETE", path, needs=needs, body=body)

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        needs: str,
        body: Any = None,
        query: Mapping[str, object] | None = None,
    ) -> httpx.Response:
        url = "/".join((self._root, *(quote(part, safe="") for part in path)))
        answer = self._request(method, url, body, query or {})
        status = answer.status_code
        if status in _OK:
            return answer
        place = self._shown(path)
        if status == _FORBIDDEN:
            raise AdminForbidden(self.lacks(needs, f"{method} {place}"))
        if status == _NOT_FOUND and answer.headers.get("Server", "").startswith(_EMBEDDED):
            raise AdminError(
                f"{self.target.server} is the embedded issuer (s2s-fastapi dev), which has no admin API: name a Keycloak with"
                " KEYCLOAK_URL or --url."
            )
        if status == _NOT_FOUND and not path:
            raise AdminError(
                f"There is no realm {named(self.target.realm)} at {self.target.server}: create it, or name another one with"
                " KEYCLOAK_REALM or --realm. This command never creates a realm."
            )
        said = _message(answer)
        if status == _CONFLICT:
            raise AdminConflict(f"Keycloak refused {method} {place}, because there is one already{said}.")
        raise AdminError(f"Keycloak answered {status} to {method} {place}{said}.")

    def lacks(self, right: str, what: str) -> str:
        """Say that the admin client lacks a right, and what it could not do without."""
        return (
            f"{named(self.target.login.client_id)} has no right to {what}. Give its service account the role {right} of the client"
            f" {named(self._holder)} in the realm {named(self.target.login.realm)}{_OR_ANOTHER if right.startswith('manage-') else ''}."
        )

    def surely_lacks(self, right: str) -> bool:
        """Return whether the admin client's own token lists rights, and not this one. A token that lists none says nothing."""
        try:
            roles = (claims_of(self._token()) or {})["resource_access"][self._holder]["roles"]
        except (LookupError, TypeError, S2SError):
            return False
        return isinstance(roles, list) and right not in roles

    @property
    def _holder(self) -> str:
        """The client whose roles are the rights."""
        return "realm-management" if self.target.realm == self.target.login.realm else f"{self.target.realm}-realm"

    def _request(self, method: str, url: str, body: Any, query: Mapping[str, object]) -> httpx.Response:
        for last in (False, True):
            try:
                token = self._token()
            except S2SError as error:
                sentence = self._worded(str(error))
            else:
                answer = self._answer(method, url, body, query, token)
                if answer.status_code != _UNAUTHORIZED or last:
                    if answer.status_code == _UNAUTHORIZED:
                        raise AdminError(
                            "Keycloak's Admin API refuses the token that Keycloak itself issued: check KEYCLOAK_URL. If somebody revoked"
                            " all tokens or disabled the admin client just now, run the command again."
                        )
                    return answer
                self._refused(token)  # it expired in between, or all tokens were revoked: nothing was done
                continue
            # Outside of the except block: the frames of the error hold the secret.
            raise AdminError(f"The admin client cannot log in. {sentence}")
        raise AssertionError  # the loop returns or raises

    def _worded(self, sentence: str) -> str:
        """Return a sentence about the log-in with the variables of the admin client, and with those that say where Keycloak is."""
        sentence = sentence.replace("KEYCLOAK_CLIENT_", f"{_ADMIN}CLIENT_")
        for name in _PLACE:
            if name != "realm" or self.target.login.realm == self.target.realm:
                sentence = sentence.replace(f"{_ADMIN}{name.upper()}", f"KEYCLOAK_{name.upper()}")
        return sentence

    def _answer(self, method: str, url: str, body: Any, query: Mapping[str, object], token: str) -> httpx.Response:
        problem = ""
        self._deadline.restart(self._seconds)
        try:
            request = self._http.build_request(
                method,
                url,
                json=body,
                params={name: str(value) for name, value in query.items()} or None,
                headers={
                    "Authorization": f"Bearer {token}",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
            )
            answer = self._http.send(request, stream=True)
            try:
                content = bytearray()
                if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                    # A few bytes of gzip become gigabytes.
                    raise AdminError(
                        "Keycloak's answer is compressed, although the request forbids it: a proxy changes it."
                    )
                # Nothing is compressed here, so these are the bytes on the wire.
                for chunk in answer.iter_bytes():
                    content += chunk
                    self._deadline.left()
                    if len(content) > _LIMIT:
                        problem = f"answered more than {_LIMIT} bytes"
                        break
            finally:
                answer.close()
        except httpx.TimeoutException:
            problem = f"did not answer in full within {self._seconds:g} seconds"
        except httpx.HTTPError as error:
            problem = f"cannot be reached ({type(error).__name__})"
        if problem:  # outside of the except block: the request holds the token
            raise AdminError(f"Keycloak at {self.target.server} {problem}.")
        return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(content))

    def _json(self, answer: httpx.Response, path: tuple[str, ...]) -> Any:
        try:
            return answer.json()
        except (ValueError, RecursionError):
            pass
        raise AdminError(f"Keycloak answered {self._shown(path)} with something else than JSON: check KEYCLOAK_URL.")

    def _shown(self, path: tuple[str, ...]) -> str:
        return printable("/".join((f"/admin/realms/{self.target.realm}", *path)), _SHOWN)


def _message(answer: httpx.Response) -> str:
    """Return what Keycloak said about a refusal: it names what was sent, and no secret."""
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        return ""
    text = (
        (said.get("errorMessage") or said.get("error_description") or said.get("error"))
        if isinstance(said, dict)
        else ""
    )
    return f": {printable(str(text), _SHOWN)}" if text else ""


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return ("", url, None)
    return (parsed.scheme, parsed.host, parsed.port)
