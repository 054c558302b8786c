"""The embedded issuer: answers for realms as Keycloak does, by one plain function ``answer(request) -> response``."""

import os
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, Unpack
from urllib.parse import unquote, urlsplit

import httpx

from s2s_fastapi.caller.wanted import Names, Wanted
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.names import names_given, realm_segment, scope_problem
from s2s_fastapi.proof.key import ProofKey
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.realm.notices import Notice
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import answers
from s2s_fastapi.testing.asgi import IssuerApp
from s2s_fastapi.testing.clock import IssuerTime
from s2s_fastapi.testing.documents import read_documents
from s2s_fastapi.testing.downstream import PlayedService, playing
from s2s_fastapi.testing.faults import NONE, Endpoint, Faults
from s2s_fastapi.testing.identities import Caller, Identity, TokenOptions, make_token, refused
from s2s_fastapi.testing.keys import NewKey, RealmKeys, once_in_a_process
from s2s_fastapi.testing.minting import Grant, Mint
from s2s_fastapi.testing.named_realm import Named, realm_document
from s2s_fastapi.testing.pages import certs_page, discovery_page, realm_page
from s2s_fastapi.testing.realm import IssuerRealm
from s2s_fastapi.testing.record import Exchange, Record
from s2s_fastapi.testing.routing import place_of
from s2s_fastapi.testing.server import LoopbackServer
from s2s_fastapi.testing.token_endpoint import answer_token_request
from s2s_fastapi.testing.transport import IssuerTransport
from s2s_fastapi.testing.trust import Trusted, trusting
from s2s_fastapi.testing.versions import NEWEST, Wire
from s2s_fastapi.testing.wire import Request, Response

__all__ = ["EmbeddedIssuer", "only_bound", "only_receives"]

_TEST_REALM: Final = "test"
_METHODS: Final = {
    "client-jwt": "private_key_jwt",
    "client-x509": "tls_client_auth",
    "federated-jwt": "federated_jwt",
}
"""``KEYCLOAK_CLIENT_AUTH`` by Keycloak's name of it, if it is not the secret."""
_BROUGHT: Final = {
    "private_key_jwt": "KEYCLOAK_CLIENT_KEY_FILE",
    "tls_client_auth": "KEYCLOAK_CLIENT_CERT_FILE",
    "federated_jwt": "KEYCLOAK_CLIENT_ASSERTION_FILE",
}
_SEEN: Final = (("Server", "s2s-fastapi embedded issuer, for development only"),)


class EmbeddedIssuer:
    """Issue tokens from realm documents as Keycloak would, with keys that are new in every process. For development and tests.

    - Several realms share one address: `url` and `auth_path`.
    - `public_url` is the address in ``iss``, if it is another one. It may contain ``{port}``.
    - `version` is the Keycloak that is imitated.
    - `values` are the values of the placeholders in the documents. The issuer only keeps them, as an attribute.

    Requests reach it in process (`transport`, `app`) or on a loopback socket (`serving`). `faults` breaks it on purpose. `requests`
    returns what it received and answered. Several threads may use it at once.
    """

    def __init__(
        self,
        *documents: Mapping[str, Any],
        url: str = "http://keycloak.test",
        public_url: str | None = None,
        auth_path: str = "",
        version: str = NEWEST,
        values: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        new_keys: Callable[[str], NewKey] | None = None,
    ) -> None:
        """Read the documents; keys are made when they are first needed.

        Raises:
            ConfigurationError: There is no document, one is no realm, two have the same name, or the version is none.
        """
        self._new_keys = new_keys
        self._realms = _realms(documents, version=version, before={}, new_keys=new_keys)
        if auth_path.rstrip("/") and not auth_path.startswith("/"):
            raise ConfigurationError(
                f"The path of the server must be empty or start with a slash, as /auth, not {auth_path!r}."
            )
        self.url = url
        """Its address, without ``auth_path``; `serving` changes it."""
        self.auth_path = auth_path.rstrip("/")
        self.version = version
        self.values: Mapping[str, str] = dict(values or {})
        self.faults = Faults()
        self.requests = Record()
        self._of_files: tuple[Notice, ...] = ()
        self._read_files = False
        self._public_url = public_url
        self._wire = Wire.of(version)
        self.time = IssuerTime(clock)
        self._named: dict[str, dict[Named, None]] | None = None
        self._home = ""
        self._issuers: dict[str, str] = {}
        self._blocks: list[Trusted] = []
        self._played: list[PlayedService] = []
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"EmbeddedIssuer({', '.join(self.realms)}, url={self.url + self.auth_path!r})"

    @classmethod
    def read(cls, *paths: str | Path, values: Mapping[str, str] | None = None, **options: Any) -> Self:
        """Return an issuer for realm files. `values` and new random ones replace each ``${NAME}``; `options` are as above.

        Raises:
            ConfigurationError: A file cannot be read, or is no realm.
        """
        documents = read_documents(paths, values or {})
        issuer = cls(*documents.realms, values=documents.values, **options)
        issuer._of_files, issuer._read_files = documents.notices, True
        return issuer

    @classmethod
    def for_tests(cls) -> Self:
        """Return an issuer without a realm file. A client exists as soon as somebody names it, with what it is named with.

        It reads nothing of the environment. All such issuers of a process have the same address and the same keys.
        """
        document = realm_document(_TEST_REALM, ())
        issuer = cls.standing_in(document, public_url="http://keycloak.test", new_keys=_keys_of_tests)
        issuer._named = {issuer._home: {}}  # noqa: SLF001 - an object of this class
        return issuer

    @classmethod
    def standing_in(cls, document: Mapping[str, Any], **options: Any) -> Self:
        """Return an issuer whose realm stands for the first realm of every app. For each further one it makes a realm with its ``iss``.

        Raises:
            ConfigurationError: The document is no realm.
        """
        issuer = cls(document, **options)
        (issuer._home,) = issuer.realms
        return issuer

    def load(self, *paths: str | Path, values: Mapping[str, str] | None = None) -> None:
        """Replace the realms by those of realm files: from now on only what they grant is granted. See `read`.

        Raises:
            ConfigurationError: A file cannot be read, or is no realm; or an app trusts this issuer already.
        """
        if self._blocks:
            raise ConfigurationError(
                f"{self._blocks[0].name} trusts the test issuer already: call load before client_of."
            )
        documents = read_documents(paths, values or {})
        self.reload(*documents.realms, values=documents.values)
        self._of_files, self._named, self._read_files = documents.notices, None, True
        self._home, self._issuers = "", {}

    # What it is

    @property
    def realms(self) -> tuple[str, ...]:
        """The names of its realms."""
        return tuple(self._realms)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Why Keycloak refuses a realm, and how its answers may differ. It is computed at each call."""
        of_realms = (notice for realm in self._realms.values() for notice in realm.notices)
        return (*self._of_files, *of_realms)

    @property
    def public_url(self) -> str:
        """The address in ``iss``, without ``auth_path``."""
        return (self._public_url or self.url).replace("{port}", str(urlsplit(self.url).port or ""))

    def issuer(self, realm: str) -> str:
        """Return the claim ``iss`` of the realm's tokens."""
        return self._issuers.get(realm) or self._below(self.public_url, realm)

    def secrets(self, realm: str) -> dict[str, str]:
        """Return the secrets of the confidential clients, by client id."""
        return self._realm(realm).secrets

    def without_secret(self, realm: str) -> dict[str, str]:
        """Return the enabled services that prove themselves without a secret, by client id, each with the variable for what it brings."""
        model = self._realm(realm).model
        methods = {client_id: self._method(realm, client_id) for client_id in model.service_client_ids}
        return {client_id: _BROUGHT[method] for client_id, method in methods.items() if method}

    def passwords(self, realm: str) -> dict[str, str]:
        """Return the passwords of the users, by user name."""
        return self._realm(realm).passwords

    def environment(self, realm: str, client_id: str) -> dict[str, str]:
        """Return the ``KEYCLOAK_*`` variables of the service that is this client.

        One that signs assertions brings its own key: ``KEYCLOAK_CLIENT_KEY_FILE`` is not among them. In the same way one brings its
        ``KEYCLOAK_CLIENT_ASSERTION_FILE`` or its ``KEYCLOAK_CLIENT_CERT_FILE``, if it proves itself by that.

        Raises:
            ConfigurationError: There is no such realm, or no such client with a secret.
        """
        self._name(Named(client_id=client_id), realm)
        method = self._method(realm, client_id)
        variables = {
            "KEYCLOAK_URL": self.url,
            "KEYCLOAK_PUBLIC_URL": self.public_url if self.public_url != self.url else "",
            "KEYCLOAK_AUTH_PATH": self.auth_path,
            "KEYCLOAK_REALM": realm,
            "KEYCLOAK_CLIENT_ID": client_id,
            "KEYCLOAK_CLIENT_AUTH": method,
            "KEYCLOAK_CLIENT_SECRET": "" if method else self._realm(realm).secret(client_id),
        }
        return {name: value for name, value in variables.items() if value}

    def _method(self, realm: str, client_id: str) -> str:
        """Return how a client proves itself, as ``KEYCLOAK_CLIENT_AUTH`` names it; empty if it does so by a secret."""
        client = self._realm(realm).model.client(client_id)
        return _METHODS.get(client.authenticator, "") if client is not None and client.enabled else ""

    # Ways in

    def transport(self, *, certificate: bytes = b"") -> httpx.BaseTransport:
        """Return an httpx transport that sends every request to this issuer, whatever the host, for ``ServiceAuthMiddleware(transport=)``.

        ``certificate``: the client certificate of its connections (PEM), as if the server had verified it.

        Raises:
            ValueError: This is no certificate.
        """
        held = ssl.PEM_cert_to_DER_cert(certificate.decode("ascii").strip()) if certificate else b""
        return IssuerTransport(self.answer, held)

    @property
    def app(self) -> IssuerApp:
        """This issuer as an ASGI application."""
        return IssuerApp(self.answer)

    @contextmanager
    def serving(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> Iterator[LoopbackServer]:
        """Answer on a loopback socket; port 0 takes a free one. From then on `url` is that address.

        If the issuer is served again, it has the same realms, keys and secrets. With ``tls`` it speaks https. If that context asks for client
        certificates (``verify_mode=ssl.CERT_OPTIONAL``), they prove clients and bind tokens.

        Raises:
            OSError: The port is taken.
        """
        for realm in tuple(self._realms.values()):
            realm.keys.published()  # made before a request waits for them: two RSA keys take a second on a busy machine
        with LoopbackServer(self.answer, port=port, tls=tls) as server:
            self.url = server.url
            yield server

    def reload(self, *documents: Mapping[str, Any], values: Mapping[str, str] | None = None) -> None:
        """Replace the realms. One that has the name of a realm before keeps the keys, the secrets that were made, and the revocation.

        Raises:
            ConfigurationError: As when the issuer is made; then the realms stay as they were.
        """
        self._realms = _realms(documents, version=self.version, before=self._realms, new_keys=self._new_keys)
        if values is not None:
            self.values = dict(values)

    # What an administrator would do

    def rotate_keys(self, realm: str, *, algorithm: str = "RS256", keep: bool = True) -> str:
        """Let a new key sign the realm's tokens at once and return its id; the older ones stay published if kept.

        Raises:
            ConfigurationError: There is no such realm or algorithm.
        """
        return self._realm(realm).keys.rotate(algorithm, keep=keep)

    def remove_key(self, realm: str, kid: str) -> None:
        """Take a key out of the realm's JWKS.

        Raises:
            ConfigurationError: There is no such realm or key.
        """
        self._realm(realm).keys.remove(kid)

    def signing_kid(self, realm: str, algorithm: str = "RS256") -> str:
        """Return the id of the key that signs the realm's tokens now."""
        return self._realm(realm).keys.kid(algorithm)

    def keys(self, realm: str) -> RealmKeys:
        """Return the keys of a realm, to sign what no issuer signs: an attack.

        Raises:
            ConfigurationError: There is no such realm.
        """
        return self._realm(realm).keys

    def set_provider_keys(self, realm: str, alias: str, jwks: Mapping[str, Any]) -> None:
        """Let an identity provider of the realm have these public keys (RFC 7517 section 5). Then nothing is fetched from it.

        Raises:
            ConfigurationError: There is no such realm, or this is no key set.
        """
        try:
            self._realm(realm).provider_keys.give(alias, jwks)
        except ValueError as error:
            raise ConfigurationError(f"The keys of the identity provider {alias}: {error}.") from None

    def assertion(self, client_id: str, *, realm: str = "", expires_in: int = 600, **claims: Any) -> str:
        """Return a token by which a client that has no secret proves itself, as its identity provider would issue it.

        - It is for ``KEYCLOAK_CLIENT_ASSERTION_FILE``. A key that is made for it counts beside those of the provider.
        - ``expires_in``: seconds from now. ``claims`` replace those of a good token; None removes a claim.

        Raises:
            ConfigurationError: There is no such realm, or no such client of an identity provider.
        """
        found = self._realm(self._realm_of(realm, None))
        client = found.model.client(client_id)
        attributes = client.attributes if client is not None and client.authenticator == "federated-jwt" else {}
        alias = attributes.get("jwt.credential.issuer", "")
        provider = next((each for each in found.model.identity_providers if each.alias == alias), None)
        if provider is None:
            raise ConfigurationError(
                f"The realm {found.name} has no client {client_id} that proves itself by the token of an identity provider."
            )
        now = int(self.time.now())
        issuer = {"iss": provider.config["issuer"]} if provider.config.get("issuer") else {}
        good = {"sub": attributes.get("jwt.credential.sub"), "aud": self.issuer(found.name), "jti": str(uuid.uuid4())}
        given = {**issuer, **good, "iat": now, "exp": now + expires_in, **claims}
        return found.provider_keys.sign(alias, {name: value for name, value in given.items() if value is not None})

    def set_not_before(self, realm: str, at: int | None = None) -> int:
        """Revoke the realm's tokens that were issued before `at`, in seconds since the epoch, and return it. The default is now."""
        self._realm(realm).not_before = moment = int(self.time.now()) if at is None else at
        return moment

    def logout(self, username: str, *, realm: str = "") -> int:
        """End all sessions of a user, as *Sign out* on the user's page does, and return how many there were.

        - From then on no token of these sessions can be exchanged. Services that verify tokens themselves still accept them until they expire.
        - An offline session ends, too. Keycloak keeps it, and refuses its tokens from before this second only.
        - ``username`` is that of `as_user`, or of the realm file; or of a service account, ``service-account-CLIENT``.
        - ``realm``: the realm of the user, if the issuer has several.

        Raises:
            ConfigurationError: There is no such realm.
        """
        found = self._realm(self._realm_of(realm, None))
        return found.issued.logout(username.lower(), now=int(self.time.now()))

    def service_environment(
        self, client_id: str, *, audience: Names = None, scope: Names = None, realm: str = ""
    ) -> dict[str, str]:
        """Return the environment of a process that is this client: that of this process, with other ``KEYCLOAK_*`` variables.

        - The issuer must be on a socket: see `serving`.
        - Without a realm file the tokens that the client asks for have this audience, and it may ask for these scopes.

        Raises:
            ConfigurationError: There is no such realm, or no such client with a secret.
        """
        self._name(
            Named(
                client_id=client_id,
                audiences=names_given("audience", audience),
                scopes=names_given("scope", scope, scope_problem),
            ),
            self.place(realm)["realm"],
        )
        others = {name: value for name, value in os.environ.items() if not name.startswith("KEYCLOAK_")}
        return others | self.environment(self.place(realm)["realm"], client_id)

    # Apps that trust it

    @contextmanager
    def trusted_by(
        self, *targets: Any, client_id: str | None = None, audience: Names = None, realm: str = ""
    ) -> Iterator[Trusted]:
        """Let an app and everything below it trust this issuer inside the block, in receiving and in calling.

        - ``targets``: the app, and what belongs to it and hangs on no app: a `TokenVerifier`, an object that it calls with.
        - ``client_id``: the client that the app is, unless its settings name one. As in production, it is then the audience of the app.
        - ``audience``: what ``KEYCLOAK_AUDIENCE`` says in production, if that is not the client.
        - ``realm``: the realm of the app, if the issuer has several.
        - The app's verifier, and the source of its tokens, are exchanged as whole objects. All tokens are verified as in production.
        - At the end everything is as before, in whatever order blocks end.

        Raises:
            ConfigurationError: Nothing in the app receives or sends tokens, uvicorn serves the app to other machines, or the app trusts
                another issuer at the moment.
        """
        for each in tuple(self._realms.values()):
            each.keys.published()  # made before a request waits for them, at most 3 s
        names = names_given("audience", audience)
        with (
            playing(self._played),
            trusting(self, targets, client_id=client_id, audience=names, realm=realm) as trusted,
        ):
            self._blocks.append(trusted)
            try:
                yield trusted
            finally:
                self._blocks.remove(trusted)

    def downstream(self, *targets: Any) -> PlayedService:
        """Play a service that an app calls, for as long as a block of `trusted_by` is open: ``crm = issuer.downstream(chat_app.crm)``.

        - ``targets``: origins (``http://crm:8001``), or the objects that the app calls with.
        - ``crm.answer(201, json=...)`` scripts answers, and ``crm.calls`` says who called, with which token.
        - It answers every client of httpx and httpx2 in this process, also those that the app makes itself.

        Raises:
            ConfigurationError: An origin is malformed, or an object has none.
        """
        origins = [
            origin
            for target in targets
            for origin in ([target] if isinstance(target, str) else target.downstream.origins)
        ]
        if not origins:
            raise ConfigurationError("downstream takes an origin, as http://crm:8001, or an object that calls one.")
        self._played.append(PlayedService(*origins))
        return self._played[-1]

    def reset(self) -> None:
        """Forget what happened: requests, faults, turned clocks, calls, scripted answers; and tokens, keys and failures of the apps in a block."""
        for service in self._played:
            service.forget()
        self.requests.clear()
        self.faults.clear()
        self.time.reset()
        for trusted in tuple(self._blocks):
            trusted.reset()

    def place(
        self, realm: str = "", settings: KeycloakSettings | None = None, *, further: bool = False
    ) -> dict[str, str]:
        """Return ``url``, ``auth_path``, ``realm`` and ``issuer``, as settings name them.

        ``settings`` are those of the app for the realm. ``further``: the app has another realm, which comes first.

        Raises:
            ConfigurationError: There are several realms, and `realm` is none of them.
        """
        if self._home and settings is not None and further:
            path = f"/{realm_segment(self._standing_for(settings))}"
            return {"url": self.public_url, "auth_path": path, "realm": settings.realm, "issuer": settings.issuer}
        if self._home:
            name = self._home
        else:
            known = [each for each in (realm, settings.name if settings else "") if each in self._realms]
            name = next(iter(known or self._realms))
            realm = name if known else realm
        if not self._home and name != realm and len(self._realms) > 1:
            raise ConfigurationError(
                f"The test issuer has several realms, {', '.join(self._realms)}: write trusted_by(app, realm=...)."
            )
        place = {"url": self.public_url, "realm": name, "issuer": self.issuer(name)}
        return place | ({"auth_path": self.auth_path} if self.auth_path else {})

    def _standing_for(self, settings: KeycloakSettings) -> str:
        """Return the realm that stands for a further one of an app. It is made if there is none yet."""
        with self._lock:
            for name, issuer in self._issuers.items():
                if issuer == settings.issuer:
                    return name
            name, number = settings.name, 1
            while name in self._realms:
                number += 1
                name = f"{settings.name}-{number}"
            self._issuers[name] = settings.issuer
            if self._named is not None:
                self._named[name] = {}
            self._put(realm_document(name, ()))
            self._realms[name].keys.published()  # made before a request waits for them
            return name

    def realm_of(self, issuer: str) -> str:
        """Return the name of the realm with this ``iss``; empty if there is none."""
        return next((name for name in self._realms if self.issuer(name) == issuer), "")

    def _put(self, document: Mapping[str, Any]) -> None:
        """Add a realm, or replace the one of this name."""
        made = _realms([document], version=self.version, before=self._realms, new_keys=self._new_keys)
        self._realms = {**self._realms, **made}

    def credentials(self, realm: str, client_id: str) -> dict[str, str]:
        """Return the credentials of a client, as settings name them.

        Raises:
            ConfigurationError: The realm file has no such client.
        """
        self._name(Named(client_id=client_id), realm)
        found = self._realm(realm)
        if method := self._method(realm, client_id):
            return {"client_auth": method}
        if client_id not in found.secrets:
            raise ConfigurationError(
                f"The realm {realm} has no client {client_id} with a secret, only {', '.join(sorted(found.secrets)) or 'none'}: write "
                "trusted_by(app, client_id=...)."
            )
        return {"client_secret": found.secrets[client_id]}

    def needs(self, realm: str, client_id: str) -> None:
        """Do nothing if an app can be this client.

        Raises:
            ConfigurationError: The realm file has no such client.
        """
        model = self._realm(realm).model
        if self._read_files and model.client(client_id) is None:
            raise ConfigurationError(
                f"The realm {realm} has no client {client_id}, only {', '.join(sorted(model.client_ids)) or 'none'}: write "
                "client_of(app, client_id=...) with one of them."
            )

    def asked(self, realm: str, client_id: str, wanted: Wanted) -> None:
        """Note that a client will ask for a token. Without a realm file it is granted what it asks for."""
        by_scope = bool(wanted.scopes)
        named = Named(client_id=client_id, audiences=wanted.audiences, scopes=wanted.scopes, by_scope=by_scope)
        self._name(named, realm)

    # Who calls

    def as_service(self, client_id: str, **options: Unpack[TokenOptions]) -> Caller:
        """Return an httpx auth object for a service, with ``token`` and ``headers`` for everything else.

        - ``audience``: the audience of the app that the request goes to, unless given.
        - ``scope``, ``roles``, ``realm_roles``: none, unless given. A plain list of ``roles`` is of the app's own client.
        - ``claims`` replace what Keycloak would write; None removes a claim.
        - ``expires_in``: seconds from now. If it is negative, the token was issued before it expired.
        - ``issuer``: another ``iss``. ``key``: ``"foreign"``, ``"forged"`` or a private key of joserfc. ``dpop=True`` binds
          the token to a key of the caller, and each request has a proof. ``certificate=True`` binds it to a certificate of the caller,
          which each request shows: for apps with ``client_certificate="tls"``.
        - With a realm file only what the file grants is granted, and an unknown client is an error.

        Raises:
            ConfigurationError: A name is invalid.
        """
        return Caller(Identity.of(client_id, **options), self._made_for, self._only, self.time.now)

    def as_user(self, username: str, *, via: str = "", **options: Unpack[TokenOptions]) -> Caller:
        """Return an httpx auth object for a user who logged in through the client `via`. The rest is as in `as_service`.

        Raises:
            ConfigurationError: A name is invalid, or ``via`` is missing.
        """
        if not via:
            raise ConfigurationError(
                f'Say with via= through which client the user logged in: as_user("{username}", via="front-end").'
            )
        return Caller(Identity.of(via, username, **options), self._made_for, self._only, self.time.now)

    def _only(self, identity: Identity) -> Trusted | None:
        """Return the block of the only app that trusts this issuer."""
        apps = {trusted.receivers: trusted for trusted in self._blocks if trusted.receivers}
        if len(apps) > 1 and not identity.audience:
            names = ", ".join(sorted(trusted.name for trusted in apps.values()))
            raise ConfigurationError(
                f"Several apps trust the test issuer ({names}): say with audience= for which of them the token is."
            )
        if not apps and not identity.audience and "aud" not in identity.claims and self._named is not None:
            raise ConfigurationError(
                "No app that receives tokens trusts the test issuer yet: call client_of(app) first, or say with audience= for whom the "
                "token is."
            )
        return next(iter(apps.values())) if len(apps) == 1 else None

    def _made_for(self, identity: Identity, trusted: Trusted | None) -> str:
        realm = self._realm(self._realm_of(identity.realm, trusted))
        return make_token(identity, trusted, self._mint(realm), by_file=self._named is None)

    def _realm_of(self, given: str, trusted: Trusted | None) -> str:
        """Return the realm that somebody means: by the name that an app gives it, or by its own.

        Raises:
            ConfigurationError: There is none.
        """
        blocks = self._blocks if trusted is None else [trusted]
        names = {name: realm for block in reversed(blocks) for name, realm in block.realms.items()}
        if given and given not in names and given not in self._realms and names:
            known = ", ".join(name for name in names if "://" not in name)
            raise ConfigurationError(f"The app has no realm {given}, only {known}: write realm= with one of them.")
        if given in names:
            return names[given]
        return given if given in self._realms else self.place(given or (trusted.realm if trusted else ""))["realm"]

    def _name(self, named: Named, realm: str) -> None:
        """Let a realm have what was named, if there is no realm file."""
        with self._lock:
            known = None if self._named is None else self._named.get(realm)
            if known is not None and named not in known:
                known[named] = None
                self._put(realm_document(realm, known))

    # Tokens without a request

    def service_token(
        self, realm: str, client_id: str, *, scope: str | None = None, dpop: ProofKey | None = None
    ) -> str:
        """Return a service's access token, as the token endpoint would give it; without recording a request or using a fault.

        ``dpop``: the key to which the token is bound (RFC 9449). ``dpop.proof(method, url, now=time.time(), token=token)`` makes the proof
        of one request.

        Raises:
            TokenRequestError: Keycloak would refuse it.
            ConfigurationError: There is no such realm.
        """
        self._name(Named(client_id=client_id), realm)
        jkt = dpop.thumbprint if dpop is not None else ""
        outcome = self._realm(realm).model.service_token(client_id, scope=scope, peer="127.0.0.1", jkt=jkt)
        return self._token(realm, outcome, "client_credentials")

    def user_token(self, realm: str, username: str, *, via: str, scope: str | None = None) -> str:
        """Return the access token of a user who logged in through the client `via`. It needs no password.

        Raises:
            TokenRequestError: Keycloak would refuse it.
            ConfigurationError: There is no such realm.
        """
        self._name(Named(client_id=via, username=username), realm)
        return self._token(realm, self._realm(realm).model.password(username, via=via, scope=scope), "password")

    # Answers

    def answer(self, request: Request) -> Response:
        """Return the answer to one request, with the fault that was queued for it; the request is recorded."""
        realm, endpoint, response = self._routed(request)
        fault = NONE if endpoint is None else self.faults.take(endpoint)
        sent = fault.on(replace(response, headers=response.headers + _SEEN))
        if request.method == "HEAD":
            sent = replace(sent, body=b"")
        self.requests.add(Exchange(realm, endpoint, request, sent, fault, self.time.now()))
        return sent

    def _routed(self, request: Request) -> tuple[str, Endpoint | None, Response]:
        place = place_of(self._path(request.path), auth_path=self.auth_path, strict=self._wire.strict)
        if isinstance(place, Response):
            return "", None, place
        realm = self._realms.get(place.realm)
        if realm is None:
            return "", None, answers.NO_REALM
        if place.endpoint is None:
            return realm.name, None, answers.NO_PROTOCOL if place.of_another_protocol else answers.NOT_FOUND
        return realm.name, place.endpoint, self._page(realm, place.endpoint, request)

    def _path(self, asked: str) -> str:
        """Return the path of a realm's page as if the realm did not stand for another: see `place`."""
        match asked.split("/"):
            case ["", realm, "realms", _, *below] if unquote(realm) in self._issuers:
                return "/".join([self.auth_path, "realms", realm, *below])
            case _:
                return asked

    def _page(self, realm: IssuerRealm, endpoint: Endpoint, request: Request) -> Response:
        origin = request.header("origin")
        allowed = "POST" if endpoint == "token" else "GET"
        if request.method == "OPTIONS":
            return answers.preflight(origin, f"{allowed}, OPTIONS")
        head = request.method == "HEAD" and allowed == "GET" and (self._wire.strict or endpoint == "discovery")
        if request.method != allowed and not head:
            return answers.NOT_FOUND if endpoint == "discovery" else answers.METHOD_NOT_ALLOWED
        if endpoint == "token":
            return answer_token_request(request, self._mint(realm, request.client), self._asked_url(request))
        if endpoint == "certs":
            page = certs_page(realm)
        elif endpoint == "discovery":
            internal = self._below(self._internal(request), realm.name)
            binds = realm.model.binds
            page = discovery_page(self.issuer(realm.name), internal, exchanges=self._wire.exchanges, binds=binds)
        else:
            page = realm_page(realm, self.issuer(realm.name))
        return answers.with_origin(page, origin)

    def _mint(self, realm: IssuerRealm, client: str = "127.0.0.1") -> Mint:
        return Mint(
            realm=realm,
            issuer=self.issuer(realm.name),
            wire=self._wire,
            now=int(self.time.now()),
            client=client,
            with_named=partial(self._with_named, realm),
        )

    def _with_named(self, realm: IssuerRealm, named: object) -> RealmModel:
        """Return a realm without a file as it is while a token of somebody whom only a test named is exchanged."""
        known = None if self._named is None else self._named.get(realm.name)
        if known is None or not isinstance(named, Named):
            return realm.model
        return RealmModel.read(realm_document(realm.name, [*known, named]), version=self.version)

    def _token(self, realm: str, outcome: Granted | Denied, grant: Grant) -> str:
        if isinstance(outcome, Denied):
            raise refused(outcome)
        token: str = self._mint(self._realm(realm)).answer(outcome, grant)["access_token"]
        return token

    def _realm(self, name: str) -> IssuerRealm:
        try:
            return self._realms[name]
        except KeyError:
            raise ConfigurationError(
                f"The embedded issuer has no realm {name}, only {', '.join(self._realms)}."
            ) from None

    def _internal(self, request: Request) -> str:
        """Return the address at which the request arrived. Discovery sends services back to it, as with ``hostname-backchannel-dynamic``."""
        host = request.header("host")
        if self._public_url is None or not host:
            return self.public_url
        return f"{urlsplit(self.url).scheme}://{host}"

    def _asked_url(self, request: Request) -> str:
        """Return the URL at which a request arrived. Keycloak compares DPoP proofs with it, and not with its public address."""
        host = request.header("host") or urlsplit(self.url).netloc
        return f"{request.scheme}://{host}{request.path.partition('?')[0]}"

    def _below(self, server: str, realm: str) -> str:
        return f"{server}{self.auth_path}/realms/{realm_segment(realm)}"


def only_receives(issuer: EmbeddedIssuer, realm: str, client_id: str) -> bool:
    """Return whether every flow of a client is off, so that the service that it is needs no secret.

    Raises:
        ConfigurationError: There is no such realm.
    """
    return not issuer._realm(realm).gets_tokens(client_id)  # noqa: SLF001 - of this module


def only_bound(issuer: EmbeddedIssuer, realm: str, client_id: str) -> bool:
    """Return whether a client gets only tokens that are bound to a key, so that the service that it is needs ``KEYCLOAK_DPOP=true``.

    Raises:
        ConfigurationError: There is no such realm.
    """
    return issuer._realm(realm).model.proof_missing(client_id) is not None  # noqa: SLF001 - of this module


def _keys_of_tests(realm: str) -> NewKey:
    return once_in_a_process(f"the realm {realm}")


def _realms(
    documents: Sequence[Mapping[str, Any]],
    *,
    version: str,
    before: Mapping[str, IssuerRealm],
    new_keys: Callable[[str], NewKey] | None = None,
) -> dict[str, IssuerRealm]:
    made = (IssuerRealm(one, version=version, before=before, new_keys=new_keys) for one in documents)
    realms: dict[str, IssuerRealm] = {}
    for realm in made:
        if realm.name in realms:
            raise ConfigurationError(f"Two of the realm documents have the name {realm.name}.")
        realms[realm.name] = realm
    if not realms:
        raise ConfigurationError("An embedded issuer needs a realm document.")
    return realms
