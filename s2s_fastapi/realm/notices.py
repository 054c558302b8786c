"""What the realm model says about a document before it computes a token: why Keycloak refuses the file, and what the model lacks.

Each check of what the model lacks takes a document, as `convert` returns it, and yields sentences for an operator.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.importing import imported, scope_name
from s2s_fastapi.realm.model import CERTIFICATE_BOUND, DPOP_BOUND, Granted, RealmModel
from s2s_fastapi.realm.profile import Profile
from s2s_fastapi.realm.refusals import refusals
from s2s_fastapi.realm.representations import convert
from s2s_fastapi.text import named

__all__ = ["Notice", "notices"]

_Document = Mapping[str, Any]
_Check = Callable[[_Document], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence about a realm."""

    realm: str
    sentence: str
    refused: bool
    """Whether Keycloak refuses the file."""
    ignored: bool = False
    """Whether Keycloak ignores a part of the file, as the model does. If neither, its answers may differ from those of the model."""

    def __str__(self) -> str:
        start = "Keycloak does not import this file" if self.refused else "Keycloak may answer in another way"
        if self.ignored:
            start = "Keycloak ignores a part of this file"
        return f"realm {named(self.realm)}: {start}: {self.sentence}."


def notices(document: _Document, model: RealmModel) -> tuple[Notice, ...]:
    """Return all notices about the document of a realm: first why Keycloak refuses it, then what it ignores of it."""
    converted = convert(document, model.version)
    unknown = (f"it does not know the field `{place}`" for place in converted.unknown_fields)
    refused = [*unknown, *refusals(converted.document, model.version)]
    different = [said for check in _CHECKS for said in check(converted.document)]
    different += [*_ignored_binding(converted.document, model), *_unknown(model)]
    return (
        *(Notice(model.name, said, refused=True) for said in refused),
        *(Notice(model.name, said, refused=False, ignored=True) for said in _missing_scopes(converted.document, model)),
        *(Notice(model.name, said, refused=False) for said in different),
    )


def _missing_scopes(document: _Document, model: RealmModel) -> Iterator[str]:
    """Yield the names in the lists of clients that are no client scope. Keycloak warns of each in its own log only."""
    listed = imported(document, model.version).get("clientScopes")
    built_in = {str(scope["name"]) for scope in builtins.scopes(service_account=True)[0]}
    there = {"offline_access", *(built_in | _OF_SAML if listed is None else map(scope_name, listed))}
    if model.version < (26, 1):
        there.add("service_account")  # its mappers are on the client itself
    found: dict[tuple[str, ...], list[str]] = {}
    for client in document.get("clients") or ():
        names = dict.fromkeys(str(name) for key in _LISTS for name in client.get(key) or ())
        if missing := tuple(name for name in names if name not in there):
            found.setdefault(missing, []).append(client["clientId"])
    for missing, clients in found.items():
        why = ". The file has the list `clientScopes`, so the realm has only the scopes in it"
        yield (
            f"it knows no client scope {', '.join(map(named, missing))}, so the tokens of {_some(clients)} lack what that would bring"
            f"{why if built_in.intersection(missing) else ''}"
        )


def _disabled(document: _Document) -> Iterator[str]:
    if not document.get("enabled"):
        yield 'the realm is not enabled, so every request is refused. Add `"enabled": true`'


def _https_only(document: _Document) -> Iterator[str]:
    if str(document.get("sslRequired")).lower() == "all":
        yield "`sslRequired` is all, so it refuses plain http from everywhere. The embedded issuer accepts it"


def _frontend_url(document: _Document) -> Iterator[str]:
    if url := (document.get("attributes") or {}).get("frontendUrl"):
        yield f"`frontendUrl` makes {named(url)} the start of `iss` and of all URLs. The embedded issuer keeps its own address"


def _masked_secrets(document: _Document) -> Iterator[str]:
    masked = [
        client["clientId"]
        for client in document.get("clients") or ()
        if client.get("secret") and not client["secret"].strip("*")
    ]
    if masked:
        yield f"it takes the mask ********** as the secret of {_some(masked)}. The embedded issuer makes a new secret for each"


def _empty_secrets(document: _Document) -> Iterator[str]:
    empty = [client["clientId"] for client in document.get("clients") or () if client.get("secret") == ""]
    if empty:
        yield f"the secret of {_some(empty)} is empty, so it accepts no request of it. The embedded issuer makes a new secret"


def _user_profile(document: _Document) -> Iterator[str]:
    for attribute in Profile(document).unknown():
        yield f"the user profile has rules for {named(attribute)} that the embedded issuer does not check before a login"


def _certificates(document: _Document) -> Iterator[str]:
    by_name = [
        client["clientId"]
        for client in document.get("clients") or ()
        if client.get("clientAuthenticatorType") == "client-x509"
    ]
    if needed := list(dict.fromkeys([*by_name, *_with_attribute(document, CERTIFICATE_BOUND)])):
        yield (
            f"it wants a client certificate from {_some(needed)}, and can get one over https only. The embedded issuer serves plain http unless a "
            "test gives it a TLS context, and then refuses every such request"
        )


def _spiffe(document: _Document) -> Iterator[str]:
    for provider in document.get("identityProviders") or ():
        if provider.get("providerId") == "spiffe":
            yield (
                f"it knows the identity provider {named(str(provider.get('alias')))} only with `--features=spiffe`, a preview. The embedded issuer "
                "needs no such option"
            )


def _subjects_twice(document: _Document) -> Iterator[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for client in document.get("clients") or ():
        attributes = client.get("attributes") or {}
        if client.get("clientAuthenticatorType") == "federated-jwt":
            subject = str(attributes.get("jwt.credential.issuer")), str(attributes.get("jwt.credential.sub"))
            found.setdefault(subject, []).append(client["clientId"])
    for (alias, sub), clients in found.items():
        if len(clients) > 1:
            yield (
                f"{_some(clients)} have one subject, {named(sub)} of the identity provider {named(alias)}. It refuses all of them, or goes on with the "
                "one that it knows already. The embedded issuer refuses all of them"
            )


def _ignored_binding(document: _Document, model: RealmModel) -> Iterator[str]:
    bound = _with_attribute(document, DPOP_BOUND)
    if bound and not model.binds:
        yield (
            f"it binds tokens of {_some(bound)} to a key if its preview feature dpop is on. The embedded issuer ignores the attribute "
            f"`{DPOP_BOUND}` before 26.4, as a server without the feature does"
        )


def _with_attribute(document: _Document, attribute: str) -> list[str]:
    """Return the clients that have the attribute."""
    clients = document.get("clients") or ()
    return [client["clientId"] for client in clients if (client.get("attributes") or {}).get(attribute) == "true"]


def _hashed_passwords(document: _Document) -> Iterator[str]:
    hashed = [
        str(user.get("username"))
        for user in document.get("users") or ()
        if user.get("credentials") and not any(credential.get("value") for credential in user["credentials"])
    ]
    if hashed:
        yield f"it knows the password of {_some(hashed)} by its hash. The embedded issuer cannot check a hash"


def _user_storage(document: _Document) -> Iterator[str]:
    storage = (document.get("components") or {}).get("org.keycloak.storage.UserStorageProvider")
    if storage or document.get("userFederationProviders"):
        yield "it also has the users of another directory, such as LDAP. The embedded issuer has those in the file only"


def _organizations(document: _Document) -> Iterator[str]:
    if document.get("organizationsEnabled"):
        yield "it has organizations. The embedded issuer refuses scopes such as `organization:NAME`, and knows no members"


def _second_factors(document: _Document) -> Iterator[str]:
    users = [
        str(user.get("username"))
        for user in document.get("users") or ()
        if any(credential.get("type") not in {None, "password"} for credential in user.get("credentials") or ())
    ]
    if users:
        yield f"it asks {_some(users)} for more than a password. The embedded issuer checks the password only"


def _own_flows(document: _Document) -> Iterator[str]:
    for member, usual in _USUAL_FLOWS.items():
        flow = document.get(member)
        if flow and flow != usual:
            yield f"`{member}` is {named(flow)}. The embedded issuer does what the flow {named(usual)} does"
    clients = [
        client["clientId"]
        for client in document.get("clients") or ()
        if (client.get("authenticationFlowBindingOverrides") or {}).get("direct_grant")
    ]
    if clients:
        yield f"{_some(clients)} has a flow of its own for logins with a password, which the embedded issuer does not follow"


def _old_forms(document: _Document) -> Iterator[str]:
    found = [member for member in _OLD_FORMS if document.get(member)]
    found += ["roles.application"] * bool((document.get("roles") or {}).get("application"))
    found += ["applicationRoles"] * any(user.get("applicationRoles") for user in document.get("users") or ())
    for member in found:
        yield (
            f"`{member}` is a form of very old exports, which the embedded issuer does not read. Export the realm again"
        )


def _placeholders_of_others(document: _Document) -> Iterator[str]:
    if "$(env:" in json.dumps(document):
        yield "`$(env:NAME)` is a placeholder of keycloak-config-cli and stays as it is. Write ${NAME} instead"


def _unknown(model: RealmModel) -> Iterator[str]:
    """Yield what the model does not know of the tokens of services and users."""
    found: dict[str, list[str]] = {}
    people = [name for name in model.usernames if not name.startswith("service-account-")]
    for client_id in model.client_ids:
        optional = " ".join(scope for scope in model.optional_scopes(client_id) if scope != "offline_access")
        answers = [model.service_token(client_id), model.service_token(client_id, scope=optional or None)]
        answers += [model.password(name, via=client_id, scope=optional or None) for name in people[:1]]
        for answer in answers:
            for said in answer.unknown if isinstance(answer, Granted) else ():
                of = found.setdefault(said, [])
                of += [client_id] * (client_id not in of)
    for said, clients in found.items():
        yield f"tokens of {_some(clients)}: {said}"


_MOST: Final = 3


def _some(names: list[str]) -> str:
    shown, more = ", ".join(map(named, names[:_MOST])), len(names) - _MOST
    return shown if more <= 0 else f"{shown} and {more} more"


_LISTS: Final = ("defaultClientScopes", "optionalClientScopes")
_OF_SAML: Final = frozenset({"role_list", "saml_organization"})
"""The built-in client scopes that bring nothing to a token."""
_USUAL_FLOWS: Final = {"directGrantFlow": "direct grant", "clientAuthenticationFlow": "clients"}
_OLD_FORMS: Final = ("applications", "oauthClients", "clientTemplates", "applicationScopeMappings", "protocolMappers")

_CHECKS: Final[tuple[_Check, ...]] = (
    _disabled,
    _https_only,
    _frontend_url,
    _masked_secrets,
    _empty_secrets,
    _user_profile,
    _certificates,
    _spiffe,
    _subjects_twice,
    _hashed_passwords,
    _second_factors,
    _own_flows,
    _user_storage,
    _organizations,
    _old_forms,
    _placeholders_of_others,
)
