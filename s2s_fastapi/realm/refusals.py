"""Why Keycloak refuses a file that the realm model reads.

Keycloak itself only answers 400, 409 or 500 and writes an exception to its log. Each check takes a document, as `convert` returns it, and
yields sentences that name the place and the change.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import FEDERATES_SINCE, OIDC
from s2s_fastapi.text import named

__all__ = ["name_of", "refusals"]

_Document = Mapping[str, Any]
_Check = Callable[[_Document], Iterator[str]]


def refusals(document: _Document, version: tuple[int, ...]) -> Iterator[str]:
    """Yield one sentence for each reason that a server of `version` has."""
    for check in _CHECKS if version < (26, 1) else (*_CHECKS, *_NEWER_CHECKS):
        yield from check(document)
    if version < FEDERATES_SINCE:
        yield from _unknown_providers(document)
    else:
        yield from _unverifiable_assertions(document)


def name_of(holder: _Document) -> str:
    """Return the name of a client, a flow or anything else that has a name, for use in a sentence."""
    return named(str(next((holder[key] for key in _NAMES if holder.get(key)), "without a name")))


def _policies(document: _Document) -> Iterator[tuple[str, _Document]]:
    for client in document.get("clients") or ():
        for policy in (client.get("authorizationSettings") or {}).get("policies") or ():
            yield client["clientId"], policy


def _script_policies(document: _Document) -> Iterator[str]:
    for client, policy in _policies(document):
        if policy.get("type") == "js":
            yield (
                f"the policy {name_of(policy)} of the client {named(client)} is a script (`type: js`), which it no longer runs. "
                "Remove the policy, and the permissions that use it"
            )


def _policies_of_nobody(document: _Document) -> Iterator[str]:
    users = {str(user.get(key)).lower() for user in document.get("users") or () for key in ("username", "id")}
    clients = {str(client.get(key)) for client in document.get("clients") or () for key in ("clientId", "id")}
    clients |= {str(client["clientId"]) for client in builtins.CLIENTS}
    there = {"user": ("users", users), "client": ("clients", clients)}
    for client, policy in _policies(document):
        member, known = there.get(str(policy.get("type")), ("", set()))
        for name in _names((policy.get("config") or {}).get(member)):
            if name not in known and name.lower() not in known:
                kind = policy.get("type")
                yield f"the policy {name_of(policy)} of the client {named(client)} names the {kind} {named(name)}, and there is none"


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
                    f"the identity provider {name_of(provider)} has an http URL in `{member}`. Use https, or set `sslRequired` to none"
                )


def _unknown_providers(document: _Document) -> Iterator[str]:
    for provider in document.get("identityProviders") or ():
        if (kind := provider.get("providerId")) in {"kubernetes", "spiffe"}:
            yield f"the identity provider {name_of(provider)} has the type {named(kind)}, which needs Keycloak 26.6"


def _unverifiable_assertions(document: _Document) -> Iterator[str]:
    for provider in document.get("identityProviders") or ():
        config = provider.get("config") or {}
        asserts = provider.get("providerId") == "oidc" and config.get("supportsClientAssertions") == "true"
        if asserts and config.get("useJwksUrl") != "true" and not config.get("publicKeySignatureVerifier"):
            yield (
                f"the identity provider {name_of(provider)} takes client assertions, and has no key to verify them. Set `useJwksUrl` to true, "
                "and `jwksUrl`"
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
            where = f"of the {kind} {name_of(holder)}"
            for name, times in Counter(name_of(mapper) for mapper in mappers).items():
                if times > 1:
                    yield f"the mapper {name} {where} is there twice. Rename one of them"
            for mapper in mappers:
                if not mapper.get("protocol"):
                    yield f'the mapper {name_of(mapper)} {where} has no protocol. Add `"protocol": "openid-connect"`'


def _flows_of_clients(document: _Document) -> Iterator[str]:
    there = {flow.get("id") for flow in document.get("authenticationFlows") or ()}
    for client in _clients(document):
        for member, flow in (client.get("authenticationFlowBindingOverrides") or {}).items():
            if flow and flow not in there:
                yield (
                    f"the client {name_of(client)} names the flow {named(str(flow))} for `{member}`, and no flow of the file has "
                    "this id"
                )


def _protocols(document: _Document) -> Iterator[str]:
    for client in _clients(document):
        if (protocol := client.get("protocol") or OIDC) not in _PROTOCOLS:
            yield f"the client {name_of(client)} has the protocol {named(protocol)}. Write openid-connect or saml"


def _urls(document: _Document) -> Iterator[str]:
    for client in _clients(document):
        attributes = client.get("attributes") or {}
        after_logout = str(attributes.get("post.logout.redirect.uris") or "").split("##")
        redirects = [*(client.get("redirectUris") or ()), *after_logout]
        absolute = [client.get("rootUrl"), *_absolute(client.get("baseUrl")), *_absolute(client.get("adminUrl"))]
        absolute += [attributes.get(name) for name in _URL_ATTRIBUTES]
        without_fragment = [*redirects, *absolute[:3]]
        for url in dict.fromkeys([*redirects, *absolute]):
            if not url or url in _PLACEHOLDERS:
                continue
            scheme = url.partition(":")[0].lower()
            if (
                _NO_URI.search(url)
                or scheme in _FORBIDDEN_SCHEMES
                or ("#" in url and url in without_fragment)
                or (url in absolute and scheme not in _SCHEMES)
            ):
                yield f"the client {name_of(client)} has the URL {named(url)}, which it does not accept"


def _absolute(url: str | None) -> list[str]:
    """Return the URL if Keycloak does not take it for a path of its own or of the client."""
    return [url] if url and not url.startswith("/") else []


def _levels(document: _Document) -> Iterator[str]:
    of_realm = _level_names(document)  # that of the realm may be anything
    for client in _clients(document):
        own = _level_names(client)
        if own is None:
            yield f"the `acr.loa.map` of the client {name_of(client)} is no JSON object with numbers"
            continue
        attributes = client.get("attributes") or {}
        for member in ("default.acr.values", "minimum.acr.value"):
            for level in str(attributes.get(member) or "").split("##"):
                if level and level not in (own or of_realm or ()) and not level.isdecimal():
                    yield (
                        f"`{member}` of the client {name_of(client)} has {named(level)}, and `acr.loa.map` has no level of that name"
                    )


def _level_names(holder: _Document) -> set[str] | None:
    text = str((holder.get("attributes") or {}).get("acr.loa.map") or "").strip() or "{}"
    try:
        levels = json.loads(text)
        return {name for name, level in levels.items() if int(level) >= 0}
    except (AttributeError, TypeError, ValueError):
        return None


def _sectors(document: _Document) -> Iterator[str]:
    for client in _clients(document):
        for mapper in client.get("protocolMappers") or ():
            if mapper.get("protocolMapper") != "oidc-sha256-pairwise-sub-mapper":
                continue
            where = f"the mapper {name_of(mapper)} of the client {name_of(client)}"
            if (mapper.get("config") or {}).get("sectorIdentifierUri"):
                yield f"{where} has a `sectorIdentifierUri`, which the server fetches when it imports the file"
            elif len({_host(uri) for uri in client.get("redirectUris") or ()} - {""}) != 1:
                yield f"{where} needs a `sectorIdentifierUri`, or redirect URIs of one host"


def _host(uri: str) -> str:
    found = re.match(r"\w[\w+.-]*://([^/:?#]+)", uri)
    return found[1] if found else ""


def _sessions(document: _Document) -> Iterator[str]:
    for client in _clients(document):
        for attribute, (member, usual) in _SESSION_LIMITS.items():
            own = str((client.get("attributes") or {}).get(attribute) or "").strip()
            limits = [usual if document.get(member) is None else int(document[member])]
            if document.get("rememberMe"):
                limits.append(int(document.get(f"{member}RememberMe") or 0))
            if own.isdecimal() and int(own) > max(limits):
                yield f"`{attribute}` of the client {name_of(client)} is longer than `{member}` of the realm"


def _clients(document: _Document) -> Iterator[_Document]:
    yield from document.get("clients") or ()


_NAMES: Final = ("clientId", "alias", "name")
_PROTOCOLS: Final = {OIDC, "saml"}
_PLACEHOLDERS: Final = {"${authBaseUrl}", "${authAdminUrl}", "+", "-"}
# What java.net.URI does not accept.
_NO_URI: Final = re.compile(r"[\s<>\"{}|\\^`]|%(?![0-9A-Fa-f]{2})|^[^/?#]*:$|#.*#|^[^?#]*//[^/?#]*/[^?#]*[\[\]]")
_FORBIDDEN_SCHEMES: Final = {"javascript", "data"}
_SCHEMES: Final = {"http", "https", "file", "ftp", "jar", "mailto"}
_URL_ATTRIBUTES: Final = (
    "backchannel.logout.url",
    "frontchannel.logout.url",
    "logoUri",
    "policyUri",
    "tosUri",
    "jwks.url",
)
_SESSION_LIMITS: Final = {
    "client.session.idle.timeout": ("ssoSessionIdleTimeout", 1800),
    "client.session.max.lifespan": ("ssoSessionMaxLifespan", 36000),
}
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
_CHECKS: Final[tuple[_Check, ...]] = (
    _script_policies,
    _policies_of_nobody,
    _plain_identity_providers,
    _missing_flows,
    _flows_of_clients,
    _denylists,
    _mappers,
    _urls,
    _levels,
    _sectors,
)
_NEWER_CHECKS: Final[tuple[_Check, ...]] = (_protocols, _sessions)
"""What 26.0 accepts."""
