"""Which token would Keycloak issue for this client and this scope? The model computes it from the realm's JSON, without a server.

    reading.py   the document -> the realm (entities.py) that a server has after the import (builtins.py: what the server adds)
    scopes.py    the request -> the scopes in effect, and the roles that they allow
    mappers.py   scopes and roles -> claims
    provenance.py  which mapper puts each audience and role there
    exchange.py  when a token is exchanged for another client's, and how the result is narrowed
    model.py     the questions that one can ask, and the refusals

Tests compare every answer with real servers, claim by claim (``tests/real/test_parity.py``). `Granted.unknown` names what cannot be
known from a realm's JSON, such as mappers of other vendors and client policies.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from itertools import combinations
from typing import Any, Final

from s2s_fastapi.realm import exchange
from s2s_fastapi.realm.entities import FEDERATES_SINCE, OIDC, Account, Client, IdentityProvider, Realm, Scope
from s2s_fastapi.realm.exchange import ACCESS_TOKEN, ID_TOKEN, REFRESH_TOKEN, SubjectToken, bound_to
from s2s_fastapi.realm.mappers import mapped
from s2s_fastapi.realm.provenance import Provenance, provenance
from s2s_fastapi.realm.reading import read_realm
from s2s_fastapi.realm.scopes import InEffect, in_effect
from s2s_fastapi.text import names_in

__all__ = ["CERTIFICATE_BOUND", "DPOP_BOUND", "Denied", "Granted", "RealmModel"]

DPOP_BOUND: Final = "dpop.bound.access.tokens"
"""The attribute of a client that gets only tokens which are bound to a key by DPoP (RFC 9449)."""

CERTIFICATE_BOUND: Final = "tls.client.certificate.bound.access.tokens"
"""The attribute of a client that gets only tokens which are bound to its client certificate (RFC 8705)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A token that Keycloak would issue, and the rest of the answer."""

    claims: Mapping[str, Any]
    """The access token's claims, as plain JSON that belongs to the caller alone.

    They lack ``exp``, ``iat``, ``jti`` and ``iss``, which the issuer knows, and ``clientHost`` and ``clientAddress`` if no ``peer`` was
    named. A token that has a session has ``sid``, with the value ``""``, and so has ``session_state`` if a mapper writes it. ``sub`` is the account's id if the document has one, else a made-up one that is always the same.
    """
    lifespan: int
    """Seconds; ``expires_in``."""
    scope: str
    """The response's ``scope``."""
    client_id: str
    """The client that gets the token: ``azp``, unless a mapper writes another one."""
    account: str
    """The name of the account that the token is about."""
    token_type: str = "Bearer"
    """The response's ``token_type``, unless the answer has an ID token in the place of the access token."""
    algorithm: str = "RS256"
    header_type: str = "JWT"
    openid: bool = False
    """An id_token goes with it."""
    refresh: bool = False
    """A refresh_token goes with it."""
    session: bool = False
    """The token has a session."""
    offline: bool = False
    """The session is an offline session."""
    clients: frozenset[str] = frozenset()
    """The clients that take part in the session. An exchange without a refresh token does not add the requester."""
    refresh_lifespan: int = 0
    """Seconds that the refresh_token is valid; 0 if there is none, or if it does not expire."""
    service: str = ""
    """The client to whose own token the session belongs; empty for a user's token, and if there is no session."""
    issued_type: str = ""
    """The response's ``issued_token_type``; empty unless the token came by token exchange. If it is that of an ID token, the answer has
    an ID token in the place of the access token."""
    response: Mapping[str, Any] = field(default_factory=dict)
    """What mappers add to the answer, beside the token."""
    not_before: int = 0
    """The response's ``not-before-policy``."""
    unknown: tuple[str, ...] = ()
    """What this model cannot say about the token, one sentence each. If it is empty, Keycloak would answer exactly this."""

    def as_subject(self) -> SubjectToken:
        """Return this token as one that another client may exchange."""
        return SubjectToken(
            client_id=self.client_id,
            audience=frozenset(names_in(self.claims.get("aud"))),
            username=self.account,
            session=self.session,
            service=self.service,
            offline=self.offline,
            clients=self.clients,
            bound=bound_to(self.claims),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A refusal of the token endpoint."""

    status: int
    error: str
    description: str
    """Empty if Keycloak sends none."""


_CREDENTIALS: Final = "Invalid client or Invalid client credentials"
_ASSERTION_MISSING: Final = "Parameter client_assertion_type is missing"


_DPOP_SINCE: Final = (26, 4)
_BINDING_ATTRIBUTES: Final = (DPOP_BOUND, CERTIFICATE_BOUND)
"""The attributes of a client that gets only tokens which are bound to a key."""


class RealmModel:
    """A realm that answers as its token endpoint does. It never changes, so threads may share it."""

    __slots__ = ("_realm",)

    def __init__(self, realm: Realm) -> None:
        self._realm = realm

    def __repr__(self) -> str:
        return f"RealmModel({self.name!r}, version={'.'.join(map(str, self._realm.version))!r})"

    @classmethod
    def read(
        cls, document: Mapping[str, Any], *, version: str = "26.7.3", new_secret: Callable[[str], str] | None = None
    ) -> "RealmModel":
        """Read a realm in the form that Keycloak imports, or in that of its ``partial-export``.

        - ``version`` is the server's. A newer one than was measured is taken for the newest that was.
        - ``new_secret`` makes a secret for each client id that needs one and has none, or has a masked one.

        Raises:
            ConfigurationError: The document is no realm, or one that Keycloak does not import.
        """
        return cls(read_realm(document, version, new_secret=new_secret))

    # What the realm has

    @property
    def name(self) -> str:
        """The realm's name."""
        return self._realm.name

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the server."""
        return self._realm.version

    @property
    def not_before(self) -> int:
        """Tokens issued before this second are revoked: ``tokens-not-before`` of the public realm page."""
        return self._realm.not_before

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Every client, Keycloak's own included."""
        return tuple(self._realm.clients)

    @property
    def service_client_ids(self) -> tuple[str, ...]:
        """The clients that have a service account."""
        return tuple(client.id for client in self._realm.clients.values() if client.service_accounts)

    def client(self, client_id: str) -> Client | None:
        """Return a client with its secret, its flags and its attributes, or None if there is no such client."""
        return self._realm.clients.get(client_id)

    @property
    def usernames(self) -> tuple[str, ...]:
        """The users that the document lists, service accounts among them."""
        return tuple(self._realm.users)

    def default_scopes(self, client_id: str) -> tuple[str, ...]:
        """Return the scopes that every token of the client has, unless Keycloak leaves them out; nothing for an unknown client."""
        client = self._realm.clients.get(client_id)
        return tuple(client.default) if client else ()

    def optional_scopes(self, client_id: str) -> tuple[str, ...]:
        """Return the scopes that the client may request; nothing for an unknown client."""
        client = self._realm.clients.get(client_id)
        return tuple(client.optional) if client else ()

    @property
    def scopes(self) -> Mapping[str, Scope]:
        """Every client scope of the realm, by its name."""
        return self._realm.scopes

    def scope_requests(self, client_id: str) -> Iterator[str | None]:
        """Yield what the client can request: nothing, each optional scope, every pair of them, and all at once."""
        optional = self.optional_scopes(client_id)
        yield None
        yield from optional
        yield from (" ".join(pair) for pair in combinations(optional, 2))
        if len(optional) > 2:  # noqa: PLR2004 (two are a pair)
            yield " ".join(optional)

    @property
    def identity_providers(self) -> tuple[IdentityProvider, ...]:
        """The identity providers of the realm, in the order of the document."""
        return self._realm.identity_providers

    @property
    def federates(self) -> bool:
        """Whether clients may prove who they are by the token of an identity provider: 26.6 and newer."""
        return self._realm.version >= FEDERATES_SINCE

    def federated_clients(self, alias: str, sub: str) -> tuple[Client, ...]:
        """Return the enabled clients that an identity provider names so. Keycloak authenticates none of them if there are several."""
        wanted = {"jwt.credential.issuer": alias, "jwt.credential.sub": sub}
        return tuple(
            client
            for client in self._realm.clients.values()
            if client.authenticator == "federated-jwt" and wanted.items() <= client.attributes.items()
        )

    # Answers

    def authenticate(self, client_id: str, secret: str | None) -> Denied | None:
        """Return why these are not the credentials of a client that may use the token endpoint, or None (rule 1).

        If the document does not contain the client's secret (an export masks it), the client is never authenticated.
        """
        client = self._found(client_id)
        if isinstance(client, Denied):
            return client
        if not client.public:
            if client.authenticator in {"client-jwt", "client-secret-jwt"}:
                return Denied(status=400, error="invalid_client", description=_ASSERTION_MISSING)
            if client.authenticator != "client-secret":
                return Denied(status=401, error="invalid_client", description=_CREDENTIALS)
            if not _same(secret, client.secret):
                return Denied(status=401, error="unauthorized_client", description=_CREDENTIALS)
        return self._unusable(client)

    def unusable(self, client_id: str) -> Denied | None:
        """Return why an authenticated client may not use the token endpoint all the same, or None."""
        client = self._found(client_id)
        return client if isinstance(client, Denied) else self._unusable(client)

    def client_credentials(self, client_id: str, secret: str | None, *, scope: str | None = None) -> Granted | Denied:
        """Answer a request for a service's own token (RFC 6749 section 4.4)."""
        return self.authenticate(client_id, secret) or self.service_token(client_id, scope=scope)

    def service_token(
        self, client_id: str, *, scope: str | None = None, peer: str | None = None, jkt: str = "", x5t: str = ""
    ) -> Granted | Denied:
        """Answer as `client_credentials` does after the client was authenticated.

        - ``peer`` is its address, for mappers that write it.
        - ``jkt`` is the thumbprint of the key of a DPoP proof that was verified; empty if the request has none (rule 42).
        - ``x5t`` is the thumbprint of the client certificate of the connection; empty if there is none (rule 30).
        """
        client = self._usable(client_id, jkt)
        if isinstance(client, Denied):
            return client
        if client.public or not client.service_accounts or client.account is None:
            who = "Public client" if client.public else "Client"
            reason = f"{who} not {'allowed' if client.public else 'enabled'} to retrieve service account"
            return Denied(status=401, error="unauthorized_client", description=reason)
        account = client.account
        if not account.enabled:
            return Denied(status=401, error="invalid_request", description=f"User '{account.username}' disabled")
        # Rule 15: with a refresh token comes a session.
        session = client.attributes.get("client_credentials.use_refresh_token") == "true"
        return self._issued(client, account, scope, service=client_id, session=session, peer=peer, jkt=jkt, x5t=x5t)

    def with_usable(self, client_id: str) -> "RealmModel":
        """Return the same realm in which nothing but the requested scopes keeps this client from getting a token of its own.

        So one can ask what else would stand in the way. A client that is not there is still not there.
        """
        client = self._realm.clients.get(client_id)
        if client is None:
            return self
        account = client.account or Account(username="", id="", attributes={})
        usable = replace(
            client,
            enabled=True,
            public=False,
            bearer_only=False,
            service_accounts=True,
            account=replace(account, enabled=True),
            attributes={name: value for name, value in client.attributes.items() if name not in _BINDING_ATTRIBUTES},
        )
        return RealmModel(replace(self._realm, enabled=True, clients={**self._realm.clients, client_id: usable}))

    def provenance(self, client_id: str, *, scope: str | None = None) -> Provenance | None:
        """Return where the audiences and roles of a service's token come from; None if the client has no service account."""
        client = self._realm.clients.get(client_id)
        if client is None or client.account is None:
            return None
        return provenance(self._realm, client, client.account, scope)

    def password(
        self,
        username: str,
        *,
        via: str,
        scope: str | None = None,
        right_password: bool = True,
        jkt: str = "",
        x5t: str = "",
    ) -> Granted | Denied:
        """Answer a user's login through the client ``via`` (RFC 6749 section 4.3). The caller compares the password.

        ``jkt`` and ``x5t`` are as in `service_token`.
        """
        client = self._usable(via, jkt)
        if isinstance(client, Denied):
            return client
        if not client.direct_access:
            reason = "Client not allowed for direct access grants"
            return Denied(status=400, error="unauthorized_client", description=reason)
        if client.consent:
            return Denied(status=400, error="invalid_client", description="Client requires user consent")
        user = self._realm.users.get(username.lower())
        # Keycloak checks the scope before the user. An account without roles is used if there is no such user.
        if in_effect(self._realm, client, user or _NOBODY, scope) is None:
            return self._invalid_scope(scope)
        wrong = Denied(
            status=401 if self._realm.old else 400, error="invalid_grant", description="Invalid user credentials"
        )
        if user is None or self._is_service_account(user):
            return wrong
        # 26.0 says to anybody that an account is disabled; newer versions only to those who know the password.
        if not right_password and (user.enabled or not self._realm.old):
            return wrong
        if not user.enabled:
            return Denied(status=400, error="invalid_grant", description="Account disabled")
        if not user.ready:
            return Denied(status=400, error="invalid_grant", description="Account is not fully set up")
        return self._issued(client, user, scope, session=True, jkt=jkt, x5t=x5t)

    def proof_missing(self, client_id: str) -> Denied | None:
        """Return the refusal of a client that gets only tokens which are bound to a key, if its request has no proof; else None (rule 42).

        Before 26.4, DPoP was off unless an administrator switched it on, and the attribute had no effect.
        """
        client = self._realm.clients.get(client_id)
        if client is None or client.attributes.get(DPOP_BOUND) != "true" or not self.binds:
            return None
        return Denied(status=400, error="invalid_request", description="DPoP proof is missing")

    @property
    def binds(self) -> bool:
        """Whether the server looks at DPoP proofs, and binds tokens to their keys (RFC 9449): 26.4 and newer."""
        return self._realm.version >= _DPOP_SINCE

    def may_exchange(self, client_id: str, *, jkt: str = "") -> Denied | None:
        """Return why the client may not exchange tokens, whichever they are, or None (rule 37)."""
        client = self._usable(client_id, jkt)
        return client if isinstance(client, Denied) else _denied(exchange.enabled(self._realm, client))

    def exchanged(
        self,
        client_id: str,
        subject: SubjectToken | None,
        *,
        scope: str | None = None,
        audiences: Collection[str] = (),
        requested: str = ACCESS_TOKEN,
        peer: str | None = None,
        jkt: str = "",
    ) -> Granted | Denied:
        """Answer a client that exchanges a token (RFC 8693), after the client was authenticated.

        ``subject`` is None if the text is no token of this realm, or one that has expired or whose session has ended. ``audiences`` and
        ``requested`` are the parameters ``audience`` and ``requested_token_type``. ``jkt`` is as in `service_token`.
        """
        client = self._usable(client_id, jkt)
        if isinstance(client, Denied):
            return client
        if refused := _denied(exchange.enabled(self._realm, client)):
            return refused
        account = None if subject is None else exchange.subject_account(self._realm, subject)
        if subject is None or account is None:
            return Denied(status=400, error="invalid_request", description="Invalid token")
        if refused := _denied(exchange.no_subject(client, subject, jkt)):
            return refused
        unsupported = Denied(status=400, error="invalid_request", description="requested_token_type unsupported")
        if exchange.unsupported_type(client, requested):
            return unsupported
        if refused := _denied(exchange.wrong_audience(self._realm, client, subject, audiences)):
            return refused
        effect = in_effect(self._realm, client, account, scope)
        if effect is None:
            return self._invalid_scope(scope)
        if requested not in {ACCESS_TOKEN, ID_TOKEN, REFRESH_TOKEN}:
            return unsupported
        refresh = requested == REFRESH_TOKEN
        if refused := _denied(exchange.no_result(client, subject, effect, refresh=refresh)):
            return refused
        clients = subject.clients | ({client_id} if refresh else set())
        token = self._token(
            client,
            account,
            effect,
            service=subject.service,
            session=subject.session,
            refresh=refresh,
            peer=peer,
            alone=client_id not in clients,
            jkt=jkt,
        )
        claims, missing = exchange.narrowed(token.claims, audiences) if audiences else (token.claims, [])
        if missing:
            reason = f"Requested audience not available: {', '.join(missing)}"
            return Denied(status=400, error="invalid_request", description=reason)
        id_token = requested == ID_TOKEN
        return replace(
            token,
            claims=claims,
            issued_type=requested,
            openid=token.openid and not id_token,
            offline=subject.offline,
            service=subject.service,
            clients=clients,
        )

    def _found(self, client_id: str) -> Client | Denied:
        if not self._realm.enabled:
            return Denied(status=403, error="access_denied", description="Realm not enabled")
        client = self._realm.clients.get(client_id)
        if client is None or not client.enabled:
            return Denied(status=401, error="invalid_client", description=_CREDENTIALS)
        return client

    def _usable(self, client_id: str, jkt: str) -> Client | Denied:
        client = self._found(client_id)
        if isinstance(client, Denied):
            return client
        return self._unusable(client) or (None if jkt else self.proof_missing(client_id)) or client

    def _unusable(self, client: Client) -> Denied | None:
        if client.protocol != OIDC:
            return Denied(status=400, error="invalid_client", description="Wrong client protocol.")
        if client.bearer_only and self._realm.old:  # it has no secret there, so that any is wrong
            return Denied(status=401, error="unauthorized_client", description=_CREDENTIALS)
        if client.bearer_only:
            return Denied(status=400, error="invalid_client", description="Bearer-only not allowed")
        return None

    def _is_service_account(self, user: Account) -> bool:
        return any(client.account is user for client in self._realm.clients.values())

    def _invalid_scope(self, scope: str | None) -> Denied:
        # Rule 2: the parameter is repeated whole; newer versions leave control characters out.
        said = "".join(c for c in scope or "" if self._realm.old or (c >= " " and c != "\x7f"))
        return Denied(status=400, error="invalid_scope", description=f"Invalid scopes: {said}")

    def _issued(
        self,
        client: Client,
        account: Account,
        scope: str | None,
        *,
        session: bool,
        service: str = "",
        peer: str | None = None,
        jkt: str = "",
        x5t: str = "",
    ) -> Granted | Denied:
        effect = in_effect(self._realm, client, account, scope)
        if effect is None:
            return self._invalid_scope(scope)
        refresh = session and (bool(service) or client.attributes.get("use.refresh.tokens") != "false")
        if refresh and effect.offline and not effect.offline_allowed:
            reason = "Offline tokens not allowed for the user or client"
            return Denied(status=400, error="not_allowed", description=reason)
        binds = client.attributes.get(CERTIFICATE_BOUND) == "true"  # rule 30
        if binds and not x5t:
            reason = "Client Certification missing for MTLS HoK Token Binding"
            return Denied(status=400, error="invalid_request", description=reason)
        return self._token(
            client,
            account,
            effect,
            service=service,
            session=session,
            refresh=refresh,
            peer=peer,
            jkt=jkt,
            x5t=x5t if binds else "",
        )

    def _token(
        self,
        client: Client,
        account: Account,
        effect: InEffect,
        *,
        service: str,
        session: bool,
        refresh: bool,
        peer: str | None,
        alone: bool = False,
        jkt: str = "",
        x5t: str = "",
    ) -> Granted:
        """``alone``: the session belongs to other clients only."""
        realm = self._realm
        lower = client.attributes.get("token.response.type.bearer.lower-case") == "true"
        # Rule 12: a token without a session of its client has `sub` whatever its scopes; any other needs the mapper of `basic`.
        claims = {"sub": account.id} if alone or not session else {}
        binds = bool(jkt) and self.binds
        kind = "DPoP" if binds else "bearer" if lower else "Bearer"
        claims |= {"typ": kind, "azp": client.id, "scope": effect.text}
        claims |= {"sid": ""} if session else {}
        written = mapped(realm, client, account, effect, service=service, peer=peer)
        keys = {"x5t#S256": x5t} if x5t else {}
        keys |= {"jkt": jkt, "kc-jkt-type": "DPoP"} if binds else {}
        bound = {"cnf": keys} if keys else {}
        rfc9068 = client.attributes.get("access.token.header.type.rfc9068") == "true" and not realm.old
        return Granted(
            claims=claims | written.claims | bound,
            lifespan=_lifespan(realm, client, effect),
            scope=effect.text,
            token_type=kind.lower() if lower else kind,
            algorithm=client.attributes.get("access.token.signed.response.alg") or realm.algorithm,
            header_type="at+jwt" if rfc9068 else "JWT",
            openid=effect.openid,
            refresh=refresh,
            session=session,
            offline=session and effect.offline,
            clients=frozenset({client.id} if session else ()),
            refresh_lifespan=_refresh_lifespan(realm, client, effect) if refresh else 0,
            client_id=client.id,
            account=account.username,
            service=service if session else "",
            response=written.response,
            not_before=max(realm.not_before, client.not_before),
            unknown=realm.unknown + written.unknown,
        )


_NOBODY: Final = Account(username="", id="", attributes={})


def _denied(refusal: exchange.Refusal | None) -> Denied | None:
    if refusal is None:
        return None
    status, error, description = refusal
    return Denied(status=status, error=error, description=description)


def _same(presented: str | None, expected: str | None) -> bool:
    if presented is None or expected is None:
        return False
    return compare_digest(presented.encode(errors="surrogatepass"), expected.encode(errors="surrogatepass"))


def _lifespan(realm: Realm, client: Client, effect: InEffect) -> int:
    """Rule 14, in seconds."""
    of_realm, attributes = realm.lifespans, client.attributes
    written = attributes.get("access.token.lifespan", "").strip()  # blank: the realm's
    life = int(written) if written else of_realm["accessTokenLifespan"]
    if life == -1:
        life = of_realm["ssoSessionMaxLifespan"]
    if not effect.offline:
        session, own = of_realm["ssoSessionMaxLifespan"], of_realm["clientSessionMaxLifespan"]
    elif of_realm["offlineSessionMaxLifespanEnabled"]:
        session, own = of_realm["offlineSessionMaxLifespan"], of_realm["clientOfflineSessionMaxLifespan"]
    else:
        session, own = life, 0
    its = attributes.get("client.offline.session.max.lifespan" if effect.offline else "client.session.max.lifespan", "")
    own = max(0, int(its.strip() or 0)) or own
    return min(life, session, own if own > 0 else life)


def _refresh_lifespan(realm: Realm, client: Client, effect: InEffect) -> int:
    """Rule 15, in seconds: the shortest of the idle times and of the lifespans of the session. 0 means no end."""
    of_realm, offline = realm.lifespans, effect.offline
    if offline and not of_realm["offlineSessionMaxLifespanEnabled"]:
        return 0
    kind, of_client, prefix = (
        ("offline", "clientOffline", "client.offline.session") if offline else ("sso", "client", "client.session")
    )
    limits = [of_realm[f"{kind}SessionIdleTimeout"], of_realm[f"{kind}SessionMaxLifespan"]]
    for member, attribute in (("SessionIdleTimeout", "idle.timeout"), ("SessionMaxLifespan", "max.lifespan")):
        own = int(client.attributes.get(f"{prefix}.{attribute}", "").strip() or 0)
        limits.append(own if own > 0 else of_realm[f"{of_client}{member}"])
    return min((limit for limit in limits if limit > 0), default=0)
