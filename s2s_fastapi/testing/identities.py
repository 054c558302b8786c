"""Who calls, in a test: httpx auth objects for services and users, whose token is made for the app that the request goes to."""

from collections.abc import Callable, Collection, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn, Self, TypeAlias, TypedDict, Unpack

from joserfc.jwk import Key

from s2s_fastapi.caller.httpx_compat import HttpxAuth
from s2s_fastapi.caller.wanted import Names
from s2s_fastapi.errors import ConfigurationError, TokenRequestError
from s2s_fastapi.names import names_given, scope_problem
from s2s_fastapi.proof.key import ProofKey
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.testing.client_certificates import ClientCertificate, made_up
from s2s_fastapi.testing.decisions import SENDING
from s2s_fastapi.testing.keys import RealmKeys, once_in_a_process
from s2s_fastapi.testing.minting import Grant, Mint
from s2s_fastapi.testing.named_realm import Named, realm_document
from s2s_fastapi.testing.trust import Trusted
from s2s_fastapi.text import names_in

__all__ = ["Caller", "Identity", "TokenOptions", "holder", "make_token", "refused"]

Roles: TypeAlias = str | Collection[str] | Mapping[str, str | Collection[str]] | None
TokenKey: TypeAlias = Literal["realm", "foreign", "forged"] | Key

_FOREIGN: Final = RealmKeys(once_in_a_process("nobody publishes it"))

_HOLDERS: Final[dict[tuple[str, str], ProofKey]] = {}
"""The key of each caller whose tokens are bound, by client id and user name."""


class TokenOptions(TypedDict, total=False):
    """What is unusual about a token."""

    audience: Names
    """For whom it is: the audiences of the app that the request goes to, unless given."""
    scope: Names
    """The scopes that are asked for."""
    roles: Roles
    """Roles of the app's own client, or a mapping from clients to their roles. None, unless given."""
    realm_roles: Names
    """None, unless given."""
    claims: Mapping[str, Any]
    """Claims in the place of those that Keycloak would write. The value None removes a claim."""
    expires_in: int
    """Seconds from now. If it is negative, the token was issued before it expired."""
    issuer: str
    """Another ``iss``."""
    key: TokenKey
    """What signs it: ``"foreign"`` is a key that nobody publishes, ``"forged"`` the same under the name of the realm's key."""
    dpop: bool
    """Bind the token to a key of the caller (RFC 9449 section 6.1), and send a proof with each request. Each caller has a key of its own."""
    certificate: bool
    """Bind the token to a client certificate of the caller (RFC 8705 section 3), and show it with each request: for apps with
    ``client_certificate="tls"``."""
    realm: str
    """The realm, if the issuer or the app has several: its name in Keycloak, or what the app calls it, ``KeycloakSettings(name=...)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller, and what is unusual about its token: see `TokenOptions`."""

    client_id: str
    username: str = ""
    audience: frozenset[str] = frozenset()
    scope: frozenset[str] = frozenset()
    roles: tuple[tuple[str, str], ...] = ()
    """Each after its client; the empty name is the app's own client."""
    realm_roles: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires_in: int | None = None
    issuer: str = ""
    key: TokenKey = field(default="realm", repr=False)
    dpop: bool = False
    certificate: bool = False
    realm: str = ""

    @classmethod
    def of(cls, client_id: str, username: str = "", **options: Unpack[TokenOptions]) -> Self:
        """Return the value for what somebody wrote.

        Raises:
            ConfigurationError: A name is invalid.
            TypeError: An option does not exist.
        """
        given: dict[str, Any] = {**options}
        for name in given.keys() - TokenOptions.__annotations__.keys():
            known = ", ".join(f"{each}=" for each in TokenOptions.__annotations__)
            raise TypeError(f"{'as_user' if username else 'as_service'} has no {name}=. It has {known}.")
        key = given.get("key", "realm")
        if not isinstance(key, Key) and key not in ("realm", "foreign", "forged"):
            raise ConfigurationError('key= is "realm", "foreign", "forged", or a private key of joserfc.')
        roles = given.pop("roles", None)
        by_client = roles if isinstance(roles, Mapping) else {"": roles}
        for name in ("audience", "realm_roles"):
            given[name] = names_given(name, given.get(name))
        given["scope"] = names_given("scope", given.get("scope"), scope_problem)
        given["claims"] = dict(given.get("claims") or {})
        given["roles"] = tuple(
            (client, role) for client, held in by_client.items() for role in sorted(names_given("roles", held))
        )
        return cls(client_id=client_id, username=username, **given)


class Caller(HttpxAuth):
    """An auth object for every client of httpx and httpx2. Each request has a token for the app that it goes to.

    - `token` and `headers` are for everything else, as WebSockets: a token for the only app that trusts the issuer.
    - With ``dpop=True`` each request has a bound token and a new proof (RFC 9449). The proof names the URL below the app's ``public_url``,
      whatever the test client calls. For everything else there is `headers_for`.
    """

    def __init__(
        self,
        identity: Identity,
        make: Callable[[Identity, Trusted | None], str],
        only: Callable[[Identity], Trusted | None],
        now: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._make = make
        self._only = only
        self._now = now

    @property
    def token(self) -> str:
        """A new access token.

        Raises:
            ConfigurationError: No app or several apps trust the issuer and no ``audience`` was given, or the realm file has no such client or user.
            TokenRequestError: Keycloak would refuse the token.
        """
        return self._make(self._identity, self._trusted)

    @property
    def _trusted(self) -> Trusted | None:
        """The block of the app that is asked."""
        sending = SENDING.get()
        return sending.trusted if sending is not None else self._only(self._identity)

    @property
    def headers(self) -> dict[str, str]:
        """The Authorization header with a new token.

        Raises:
            ConfigurationError: With ``dpop=True``: a proof is for one request, so `headers_for` must know which.
        """
        if self._identity.dpop:
            raise ConfigurationError(
                f"A bound token needs a proof of its own for each request: write auth={self!r}, or "
                f'headers={self!r}.headers_for("GET", "/path").'
            )
        return {"Authorization": f"Bearer {self.token}"}

    def headers_for(self, method: str, url: str, *, token: str = "") -> dict[str, str]:
        """Return the headers of one request: a token, and with ``dpop=True`` also a new proof.

        - ``url``: a path of the app, or what the client calls. The proof names the same path below the app's ``public_url``. The method of
          a WebSocket is GET.
        - ``token``: another token than a new one of this caller. So a test plays a thief: the proof is by this caller's key all the same.
        """
        token = token or self.token
        if not self._identity.dpop:
            return {"Authorization": f"Bearer {token}"}
        trusted = self._trusted
        called = url if trusted is None else trusted.public_url_of(url)
        proof = holder(self._identity).proof(method, called, now=self._now(), token=token)
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    def __iter__(self) -> NoReturn:
        """Refuse to be headers.

        Raises:
            TypeError: Always. It says what to write.
        """
        raise TypeError(f"{self!r} is an auth object: write auth={self!r}, or headers={self!r}.headers.")

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Attach a token for the app that the request goes to, and a proof or a certificate if the token is bound."""
        sending = SENDING.get()
        if sending is not None and self._identity.certificate:
            sending.certificate = certificate_of(self._identity)
        request.headers.update(self.headers_for(request.method, str(request.url)))
        yield request

    def __repr__(self) -> str:
        who = self._identity
        name, named = ("as_user", f"{who.username!r}, via=") if who.username else ("as_service", "")
        return f"{name}({named}{who.client_id!r}{', dpop=True' if who.dpop else ''}{', certificate=True' if who.certificate else ''})"


def holder(identity: Identity) -> ProofKey:
    """Return the key of a caller whose tokens are bound: always the same one in a process, and another one than that of any other caller."""
    name = (identity.client_id, identity.username)
    key = _HOLDERS.get(name)
    if key is None or not key.usable:  # in a child of the process that made it
        key = _HOLDERS[name] = ProofKey()
    return key


def certificate_of(identity: Identity) -> str:
    """Return the client certificate (PEM) of a caller whose tokens are bound to one, as `holder` returns the key."""
    return made_up(f"{identity.client_id} {identity.username}".strip())


def make_token(identity: Identity, trusted: Trusted | None, mint: Mint, *, by_file: bool) -> str:
    """Return a token for one app. `by_file`: only what the realm file grants is granted.

    Raises:
        ConfigurationError: The realm file has no such client or user, or it decides about what was given.
        TokenRequestError: Keycloak would refuse the token.
    """
    if identity.dpop and not mint.realm.model.binds:
        raise ConfigurationError(
            "dpop=True needs a newer Keycloak: before 26.4 it binds no token. Make the issuer with another version=."
        )
    granted = _of_file(identity, mint.realm.model) if by_file else _as_named(identity, trusted, mint.realm.model)
    if isinstance(granted, Denied):
        raise refused(granted)
    life = granted.lifespan if identity.expires_in is None else identity.expires_in
    now = mint.now
    if life < 0:  # it was issued as long before its end as any other token
        life, now = granted.lifespan, now + life - granted.lifespan
    named = None if by_file else _named(identity, trusted, mint.realm.name)
    own = replace(mint, now=now, named=named)
    mint = replace(own, issuer=identity.issuer or own.issuer)
    session = mint.session(granted)
    grant: Grant = "password" if identity.username else "client_credentials"
    claims = mint.claims(replace(granted, lifespan=life), grant, session)
    if identity.certificate:
        x5t = ClientCertificate.read(certificate_of(identity)).thumbprint
        claims["cnf"] = {**claims.get("cnf", {}), "x5t#S256": x5t}
    claims = {name: value for name, value in {**claims, **identity.claims}.items() if value is not None}
    options: dict[str, Any] = {"algorithm": granted.algorithm, "header_type": granted.header_type}
    if identity.key == "realm":
        token = mint.realm.keys.sign(claims, **options)
        own.remember(token, claims, granted, session)
        return token
    if identity.key in ("foreign", "forged"):
        kid = mint.realm.keys.kid(granted.algorithm) if identity.key == "forged" else ""
        return _FOREIGN.sign(claims, **options, kid=kid)
    key = identity.key
    return RealmKeys(lambda *_: key).sign(claims, **options)  # type: ignore[arg-type] # not one of the names


def refused(denied: Denied) -> TokenRequestError:
    """Return the error for a token that Keycloak would refuse."""
    return TokenRequestError(
        f"Keycloak would refuse this token: {denied.status} {denied.error}, {denied.description}.",
        error=denied.error,
        error_description=denied.description,
        http_status=denied.status,
        retryable=False,
    )


def _as_named(identity: Identity, trusted: Trusted | None, realm: RealmModel) -> Granted | Denied:
    """Return what a realm grants that has this client, and nothing else."""
    named = _named(identity, trusted, realm.name)
    return deepcopy(_granted_to(named, realm.name, ".".join(map(str, realm.version)), _jkt(identity)))


def _jkt(identity: Identity) -> str:
    return holder(identity).thumbprint if identity.dpop else ""


def _named(identity: Identity, trusted: Trusted | None, realm: str) -> Named:
    audiences = identity.audience or (trusted.audiences_in(realm) if trusted is not None else frozenset())
    own = trusted.client_in(realm) if trusted is not None else next(iter(sorted(audiences)), identity.client_id)
    return Named(
        client_id=identity.client_id,
        username=identity.username,
        audiences=audiences,
        scopes=identity.scope,
        roles=frozenset((client or own, role) for client, role in identity.roles),
        realm_roles=identity.realm_roles,
    )


@lru_cache(1024)
def _granted_to(named: Named, realm: str, version: str, jkt: str) -> Granted | Denied:
    model = RealmModel.read(realm_document(realm, [named]), version=version)
    return _answer(model, named.client_id, named.username, named.scopes, jkt)


def _of_file(identity: Identity, model: RealmModel) -> Granted | Denied:
    for name in ("roles", "realm_roles"):
        if getattr(identity, name):
            raise ConfigurationError(
                f"{name}= has no effect with a realm file, which decides about roles. claims= writes a claim as you want it."
            )
    if model.client(identity.client_id) is None:
        ids, which = (
            (model.client_ids, "clients")
            if identity.username
            else (model.service_client_ids, "clients with a service account")
        )
        known = ", ".join(sorted(ids)) or "none"
        raise ConfigurationError(f"The realm {model.name} has no client {identity.client_id}. Its {which}: {known}.")
    if identity.username and identity.username.lower() not in model.usernames:
        known = ", ".join(sorted(model.usernames)) or "none"
        raise ConfigurationError(f"The realm {model.name} has no user {identity.username}. Its users: {known}.")
    granted = _answer(model, identity.client_id, identity.username, identity.scope, _jkt(identity))
    if isinstance(granted, Granted):
        missing = identity.audience.difference(names_in(granted.claims.get("aud")))
        if missing:
            raise ConfigurationError(
                f"The realm file grants {identity.client_id} no token for {', '.join(sorted(missing))}: give it a scope with an audience "
                "mapper there. claims= writes a claim as you want it."
            )
    return granted


def _answer(model: RealmModel, client_id: str, username: str, scopes: Collection[str], jkt: str) -> Granted | Denied:
    scope = " ".join(sorted(scopes)) or None
    if username:
        return model.password(username, via=client_id, scope=scope, jkt=jkt)
    return model.service_token(client_id, scope=scope, peer="127.0.0.1", jkt=jkt)
