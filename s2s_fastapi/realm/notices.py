"""What the realm model says about a document before it computes a token: why Keycloak refuses the file, and what the model lacks.

Each check takes a document, as `convert` returns it, and yields sentences. An operator reads them, so they name the place and the change.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.model import Granted, RealmModel
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
    """Whether Keycloak refuses the file. Otherwise its answers may differ from those of the model."""

    def __str__(self) -> str:
        start = "Keycloak does not import this file" if self.refused else "Keycloak may answer in another way"
        return f"realm {named(self.realm)}: {start}: {self.sentence}."


def notices(document: _Document, model: RealmModel) -> tuple[Notice, ...]:
    """Return all notices about the document of a realm, first those why Keycloak refuses it."""
    converted = convert(document, model.version)
    unknown = (f"it does not know the field `{place}`" for place in converted.unknown_fields)
    refused = [*unknown, *(said for check in _REFUSED for said in check(converted.document))]
    different = [*(said for check in _DIFFERENT for said in check(converted.document)), *_unknown(model)]
    return tuple(
        Notice(model.name, said, refused=whether)
        for whether, every in ((True, refused), (False, different))
        for said in dict.fromkeys(every)
    )


# Why Keycloak refuses the file


def _policies(document: _Document) -> Iterator[tuple[str, _Document]]:
    for client in document.get("clients") or ():
        for policy in (client.get("authorizationSettings") or {}).get("policies") or ():
            yield client["clientId"], policy


def _script_policies(document: _Document) -> Iterator[str]:
    for client, policy in _policies(document):
        if policy.get("type") == "js":
            yield (
                f"the policy {_name(policy)} of the client {named(client)} is a script (`type: js`), which it no longer runs. "
                "Remove the policy, and the permissions that use it"
            )


def _policies_of_nobody(document: _Document) -> Iterator[str]:
    users = {str(user.get(key)) for user in document.get("users") or () for key in ("username", "id")}
    clients = {str(client.get(key)) for client in document.get("clients") or () for key in ("clientId", "id")}
    clients |= {str(client["clientId"]) for client in builtins.CLIENTS}
    there = {"user": ("users", users), "client": ("clients", clients)}
    for client, policy in _policies(document):
        member, known = there.get(str(policy.get("type")), ("", set()))
        for name in _names((policy.get("config") or {}).get(member)):
            if name not in known:
                kind = policy.get("type")
                yield f"the policy {_name(policy)} of the client {named(client)} names the {kind} {named(name)}, and there is none"


def _names(text: object) -> list[str]:
    """Return the names in the JSON list that a policy has as text, or nothing."""
    try:
        read = json.loads(text) if isinstance(text, str) else ()
    except ValueError:
        return []
    return [str(one) for one in read] if isinstance(read, list) else []


def _plain_identity_providers(document: _Document) -> Iterator[str]:
    if str(document.get("sslRequired") or "external").lower() == "none":
        return
    for provider in document.get("identityProviders") or ():
        for member, value in (provider.get("config") or {}).items():
            if member.endswith("Url") and str(value).startswith("http://"):
                yield (
                    f"the identity provider {_name(provider)} has an http URL in `{member}`. Use https, or set `sslRequired` to none"
                )


def _missing_flows(document: _Document) -> Iterator[str]:
    there = _BUILTIN_FLOWS | {flow.get("alias") for flow in document.get("authenticationFlows") or ()}
    for member in _FLOWS:
        flow = document.get(member)
        if flow and flow not in there:
            yield f"`{member}` names the flow {named(flow)}, and `authenticationFlows` has none of that name"


def _denylists(document: _Document) -> Iterator[str]:
    if "passwordBlacklist(" in str(document.get("passwordPolicy") or ""):
        yield "`passwordPolicy` names a file with denied passwords, and the server must have this file"


def _mappers(document: _Document) -> Iterator[str]:
    for kind, holders in (("client", "clients"), ("client scope", "clientScopes")):
        for holder in document.get(holders) or ():
            mappers = holder.get("protocolMappers") or ()
            where = f"of the {kind} {_name(holder)}"
            for name, times in Counter(_name(mapper) for mapper in mappers).items():
                if times > 1:
                    yield f"the mapper {name} {where} is there twice. Rename one of them"
            for mapper in mappers:
                if not mapper.get("protocol"):
                    yield f'the mapper {_name(mapper)} {where} has no protocol. Add `"protocol": "openid-connect"`'


# What the model lacks


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


def _bound_tokens(document: _Document) -> Iterator[str]:
    for attribute, proof in _BOUND.items():
        bound = [
            client["clientId"]
            for client in document.get("clients") or ()
            if (client.get("attributes") or {}).get(attribute) == "true"
        ]
        if bound:
            yield f"it accepts {proof} from {_some(bound)}. The embedded issuer accepts none, and refuses every request"


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


def _old_forms(document: _Document) -> Iterator[str]:
    for member in _OLD_FORMS:
        if document.get(member):
            yield f"`{member}` is a form of very old exports, which the embedded issuer does not read. Export the realm again"


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


_NAMES: Final = ("clientId", "alias", "name")
_MOST: Final = 3


def _name(holder: _Document) -> str:
    return named(str(next((holder[key] for key in _NAMES if holder.get(key)), "without a name")))


def _some(names: list[str]) -> str:
    shown, more = ", ".join(map(named, names[:_MOST])), len(names) - _MOST
    return shown if more <= 0 else f"{shown} and {more} more"


_FLOWS: Final = (
    "browserFlow",
    "registrationFlow",
    "directGrantFlow",
    "resetCredentialsFlow",
    "clientAuthenticationFlow",
    "dockerAuthenticationFlow",
    "firstBrokerLoginFlow",
)
_BUILTIN_FLOWS: Final = {
    "browser",
    "registration",
    "direct grant",
    "reset credentials",
    "clients",
    "docker auth",
    "first broker login",
}
_BOUND: Final = {
    "dpop.bound.access.tokens": "a DPoP proof",
    "tls.client.certificate.bound.access.tokens": "a client certificate",
}
_OLD_FORMS: Final = ("applications", "oauthClients", "clientTemplates", "applicationScopeMappings")

_REFUSED: Final[tuple[_Check, ...]] = (
    _script_policies,
    _policies_of_nobody,
    _plain_identity_providers,
    _missing_flows,
    _denylists,
    _mappers,
)
_DIFFERENT: Final[tuple[_Check, ...]] = (
    _disabled,
    _https_only,
    _frontend_url,
    _masked_secrets,
    _bound_tokens,
    _hashed_passwords,
    _user_storage,
    _old_forms,
    _placeholders_of_others,
)
