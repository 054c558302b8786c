"""What the protocol mappers put into an access token.

Keycloak runs them in five steps (rule 9 of `tests/realm/test_rules.py`): claims and audience, in no order; role names; hardcoded roles;
audience resolve; role claims. If two mappers of the first step write the same claim, the winner changes from import to import, so the claim is reported.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from s2s_fastapi.realm.entities import Account, Client, Mapper, Realm, acr_levels
from s2s_fastapi.realm.scopes import InEffect
from s2s_fastapi.realm.token import ADDRESSES, TokenDraft, path_of

__all__ = ["KNOWN_MAPPERS", "Mapped", "mapped"]

_CLAIMS, _ROLE_NAMES, _HARDCODED_ROLES, _RESOLVE, _ROLES = range(5)

_NEWEST_MEASURED: Final = (26, 7, 3)
_ALSO_IN_RESPONSE: Final = {"oidc-hardcoded-claim-mapper", "oidc-usersessionmodel-note-mapper"}
_HOST: Final = re.compile(r"[\w+.-]+://([^/:?#]+)")
_ROLES_OF_CLIENT: Final = len(("resource_access", "a client", "roles"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the mappers of a client and of the scopes in effect write."""

    claims: dict[str, Any]
    response: dict[str, Any]
    """Members of the answer beside the token."""
    unknown: tuple[str, ...]
    """What this model cannot say about them."""


def mapped(
    realm: Realm, client: Client, account: Account, effect: InEffect, *, service: str, peer: str | None
) -> Mapped:
    """Run the mappers of the client and of the scopes in effect. ``service`` is the client whose own session it is, if it is no user's."""
    draft = partial(TokenDraft, realm=realm, client=client, account=account, service=service, peer=peer)
    lightweight = client.attributes.get("client.use.lightweight.access.token.enabled") == "true"
    token, response = draft(lightweight=lightweight, roles={}), draft(lightweight=False, roles={})
    for role in sorted(effect.roles):
        token.roles.setdefault(role.client, set()).add(role.name)
    mappers = [mapper for scope in (client.own, *effect.scopes) for mapper in scope.mappers]
    for step in range(_ROLES + 1):
        for mapper in mappers:
            its_step, run = _KINDS.get(mapper.kind, (_CLAIMS, _not_known))
            if its_step == step:
                run(token, mapper)
    for mapper in mappers:  # rule 26
        if mapper.kind in _ALSO_IN_RESPONSE and mapper.config.get("access.tokenResponse.claim") == "true":
            _KINDS[mapper.kind][1](response, replace(mapper, config={**mapper.config, "access.token.claim": "true"}))
    claims = _claims(token)
    return Mapped(
        claims=claims, response=response.claims, unknown=tuple(dict.fromkeys([*token.unknown, *response.unknown]))
    )


def _claims(token: TokenDraft) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    if token.audience:
        audience = sorted(token.audience)
        claims["aud"] = audience[0] if len(audience) == 1 else audience
    if token.origins:
        claims["allowed-origins"] = token.origins
    # Rule 12: absent rather than empty.
    if token.realm_access:
        claims["realm_access"] = {"roles": sorted(token.realm_access)}
    if token.resource_access:
        claims["resource_access"] = {name: {"roles": sorted(roles)} for name, roles in token.resource_access.items()}
    for name in sorted(claims.keys() & token.claims.keys()):
        token.unknown.append(f"the token has the claim {name!r} twice, once as a mapper writes it")
    return claims | token.claims


# The kinds


def _audience(token: TokenDraft, mapper: Mapper) -> None:
    """Rule 10. The values are added as they are, also the name of a client that is missing or disabled."""
    if not token.wants(mapper):
        return
    client_id = mapper.config.get("included.client.audience")
    audience = client_id or mapper.config.get("included.custom.audience")
    if not audience:
        return
    if token.writes("aud"):  # rule 11
        token.contested("aud")
    target = token.realm.clients.get(audience)
    if client_id and (target is None or not target.enabled) and token.realm.version > _NEWEST_MEASURED:
        token.unknown.append(f"from 26.7.5 on the client {audience!r}, which is missing or disabled, may not be in aud")
    token.audience.add(audience)


def _audience_resolve(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper, unsaid="true"):
        # Rule 10: roles of the client itself never add the client as audience.
        token.audience.update(
            name for name, roles in token.roles.items() if name not in {"", token.client.id} and roles
        )


def _role_name(token: TokenDraft, mapper: Mapper) -> None:
    """Rule 9: renames a role, whatever the flags are."""
    if _lacks(token, mapper, "role", "new.role.name"):
        return
    client, name = _parsed_role(mapper.config["role"])
    if name in token.roles.get(client, set()):
        token.roles[client].remove(name)
        new_client, new_name = _parsed_role(mapper.config["new.role.name"])
        token.roles.setdefault(new_client, set()).add(new_name)


def _hardcoded_role(token: TokenDraft, mapper: Mapper) -> None:
    """Rule 9: adds a role that the account need not have, whatever the flags and fullScopeAllowed are. Composites are not expanded."""
    if _lacks(token, mapper, "role"):
        return
    client, name = _parsed_role(mapper.config["role"])
    token.roles.setdefault(client, set()).add(name)


def _lacks(token: TokenDraft, mapper: Mapper, *keys: str) -> bool:
    missing = [f"`{key}`" for key in keys if key not in mapper.config]
    if missing:
        token.unknown.append(f"the mapper {mapper.name!r} has no {' and no '.join(missing)}, and Keycloak answers 500")
    return bool(missing)


def _realm_roles(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper):
        prefix = mapper.config.get("usermodel.realmRoleMapping.rolePrefix", "")
        _role_claim(token, mapper, token.roles.get("", ()), mapper.config.get("claim.name", ""), prefix)


def _client_roles(token: TokenDraft, mapper: Mapper) -> None:
    if not token.wants(mapper):
        return
    only = mapper.config.get("usermodel.clientRoleMapping.clientId")
    prefix = mapper.config.get("usermodel.clientRoleMapping.rolePrefix", "")
    for client, roles in token.roles.items():
        if client and only in {None, "", client}:
            name = mapper.config.get("claim.name", "").replace("${client_id}", client.replace(".", "\\."))
            said = prefix if token.realm.old else prefix.replace("${client_id}", client)
            _role_claim(token, mapper, roles, name, said)


def _role_claim(token: TokenDraft, mapper: Mapper, roles: Iterable[str], claim: str, prefix: str) -> None:
    names = sorted(prefix + role for role in roles)
    if not names:
        return
    path = path_of(claim)
    if mapper.config.get("multivalued") != "true":
        if len(names) > 1:
            token.unknown.append(f"mapper {mapper.name!r} writes one role out of {len(names)}")
        token.write(mapper, names[0], claim, late=True)
    elif path == ("realm_access", "roles"):
        token.realm_access.update(names)
    elif len(path) == _ROLES_OF_CLIENT and (path[0], path[2]) == ("resource_access", "roles"):
        token.resource_access.setdefault(path[1], set()).update(names)
    else:
        token.write(mapper, names, claim, late=True)  # rule 12: what several mappers put there is joined


def _hardcoded_claim(token: TokenDraft, mapper: Mapper) -> None:
    if not token.wants(mapper) or "claim.value" not in mapper.config:
        return
    path = path_of(mapper.config.get("claim.name", ""))
    if path == ("aud",) and token.audience:
        token.contested("aud")
    roles = [] if token.realm.old else _hardcoded_roles(mapper, path)
    if not roles:
        token.write(mapper, mapper.config["claim.value"])
    elif path[0] == "realm_access":
        token.realm_access.update(roles)
    else:
        token.resource_access.setdefault(path[1], set()).update(roles)


def _hardcoded_roles(mapper: Mapper, path: tuple[str, ...]) -> list[str]:
    """Return the roles that a hardcoded claim adds to those of the account (rule 27; not in 26.0); none if the claim does not hold roles."""
    try:
        value = json.loads(mapper.config["claim.value"]) if mapper.config.get("jsonType.label") == "JSON" else None
    except ValueError:
        return []
    if path == ("realm_access",) and isinstance(value, dict) and value.keys() == {"roles"}:
        value = value["roles"]
    elif len(path) != _ROLES_OF_CLIENT or (path[0], path[2]) != ("resource_access", "roles"):
        return []
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else []


def _note(token: TokenDraft, mapper: Mapper) -> None:
    """The notes of a client-credentials session. A user's has none of them, and no AUTH_TIME after the password grant."""
    note, claim = mapper.config.get("user.session.note"), mapper.config.get("claim.name")
    if not token.wants(mapper) or not token.service:
        return
    if note in {"client_id", "clientId"}:
        token.write(mapper, token.service)
    elif note in ADDRESSES and token.peer is not None:
        token.write(mapper, token.peer)
    elif note in ADDRESSES and claim not in ADDRESSES:
        token.unknown.append(f"claim {claim!r} is the caller's address")


def _attribute(token: TokenDraft, mapper: Mapper) -> None:
    if not token.wants(mapper):
        return
    name = mapper.config.get("user.attribute", "")
    own = token.account.attributes.get(name)
    groups = dict.fromkeys(token.realm.group_attributes.get(path, {}).get(name) for path in token.account.groups)
    found = [values for values in (own, *groups) if values]  # rule 28: a group's counts if the user has none
    together = mapper.config.get("aggregate.attrs") == "true"
    if len(found) > 1 and (together or not own):
        token.unknown.append(
            f"the attribute {name!r} has values from several groups, or from the user and a group, and Keycloak does not define their order"
        )
    if found:
        token.write(mapper, list(found[0]))


def _property(token: TokenDraft, mapper: Mapper) -> None:
    if not token.wants(mapper):
        return
    name = mapper.config.get("user.attribute", "")
    account = token.account
    flags = {"emailVerified": account.email_verified, "enabled": account.enabled}
    if name in flags:
        token.write(mapper, "true" if flags[name] else "false")
    elif name == "id":
        token.write(mapper, account.id)
    elif name in {"username", "email", "firstName", "lastName"}:
        for value in account.attributes.get(name, ()):
            token.write(mapper, value)
    else:
        token.unknown.append(f"mapper {mapper.name!r} writes the user's {name!r}")


def _full_name(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper):
        parts = [*token.account.attributes.get("firstName", ()), *token.account.attributes.get("lastName", ())]
        if parts:
            token.write(mapper, " ".join(parts), "name")


def _groups(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper):
        full = mapper.config.get("full.path") == "true"
        names = [path if full else path.rpartition("/")[2] for path in token.account.groups]
        if names:
            token.write(replace(mapper, config={**mapper.config, "multivalued": "true"}), names)


def _address(token: TokenDraft, mapper: Mapper) -> None:
    if not token.wants(mapper):
        return
    parts = {"street": "street_address"} | {n: n for n in ("locality", "region", "postal_code", "country", "formatted")}
    values = {
        claim: token.account.attributes[mapper.config.get(f"user.attribute.{part}", part)][0]
        for part, claim in parts.items()
        if mapper.config.get(f"user.attribute.{part}", part) in token.account.attributes
    }
    if values or token.realm.old:
        token.claims["address"] = values


def _amr(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper):
        token.claims["amr"] = []  # rule 28: these grants have no reference to a method


def _acr(token: TokenDraft, mapper: Mapper) -> None:
    if not token.wants(mapper):
        return
    # Rule 33: a service and a login with a password have the level 1.
    levels = acr_levels(token.client.attributes) or token.realm.acr_levels
    wanted = token.client.attributes.get("default.acr.values", "").split("##")
    found = [name for name in (*wanted, *levels) if levels.get(name) == 1]
    if len(set(found)) > 1 and found[0] not in wanted:
        token.unknown.append(
            "`acr.loa.map` has several names of the level 1, and Keycloak does not define which of them is in 'acr'"
        )
    token.write(mapper, found[0] if found else "1", "acr")


def _subject(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper):
        token.write(mapper, token.account.id, "sub")


def _pairwise_subject(token: TokenDraft, mapper: Mapper) -> None:
    """Rule 35: a hash in place of the account's id, whatever the flags are."""
    sector = mapper.config.get("sectorIdentifierUri")
    uris = [sector] if sector else token.client.redirects
    host = next((found[1] for found in map(_HOST.match, uris) if found), "")
    salt = mapper.config.get("pairwiseSubAlgorithmSalt", "")  # Keycloak makes one if there is none
    digest = hashlib.sha256(f"{host}{token.account.id}{salt}".encode()).digest()
    named = hashlib.md5(digest, usedforsecurity=False).digest()  # as Java's UUID.nameUUIDFromBytes
    token.write(mapper, str(UUID(bytes=named, version=3)), "sub", late=True)


def _session_state(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper):
        token.claims["session_state"] = ""


def _origins(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper, unsaid="true") and token.client.web_origins:
        token.origins = sorted(token.client.web_origins)


def _organization(token: TokenDraft, mapper: Mapper) -> None:
    if token.wants(mapper) and token.realm.organizations:
        token.unknown.append("the realm has organizations, and no model of who is a member")


def _nothing(_token: TokenDraft, _mapper: Mapper) -> None:
    """Some mappers add nothing for the accounts and requests of this model."""


def _not_known(token: TokenDraft, mapper: Mapper) -> None:
    token.unknown.append(f"the mapper {mapper.name!r} is of the kind {mapper.kind!r}, which is not known here")


_KINDS: Final[Mapping[str, tuple[int, Callable[[TokenDraft, Mapper], None]]]] = {
    "oidc-audience-mapper": (_CLAIMS, _audience),
    "oidc-hardcoded-claim-mapper": (_CLAIMS, _hardcoded_claim),
    "oidc-usersessionmodel-note-mapper": (_CLAIMS, _note),
    "oidc-usermodel-attribute-mapper": (_CLAIMS, _attribute),
    "oidc-usermodel-property-mapper": (_CLAIMS, _property),
    "oidc-full-name-mapper": (_CLAIMS, _full_name),
    "oidc-group-membership-mapper": (_CLAIMS, _groups),
    "oidc-address-mapper": (_CLAIMS, _address),
    "oidc-acr-mapper": (_CLAIMS, _acr),
    "oidc-amr-mapper": (_CLAIMS, _amr),
    "oidc-sub-mapper": (_CLAIMS, _subject),
    "oidc-allowed-origins-mapper": (_CLAIMS, _origins),
    "oidc-sha256-pairwise-sub-mapper": (_ROLES, _pairwise_subject),
    "oidc-session-state-mapper": (_CLAIMS, _session_state),
    "oidc-nonce-backwards-compatible-mapper": (_CLAIMS, _nothing),
    "oidc-claims-param-token-mapper": (_CLAIMS, _nothing),
    "oidc-claims-param-value-idtoken-mapper": (_CLAIMS, _nothing),
    "oidc-organization-group-membership-mapper": (_CLAIMS, _organization),
    "oidc-organization-membership-mapper": (_CLAIMS, _organization),
    "oidc-role-name-mapper": (_ROLE_NAMES, _role_name),
    "oidc-hardcoded-role-mapper": (_HARDCODED_ROLES, _hardcoded_role),
    "oidc-audience-resolve-mapper": (_RESOLVE, _audience_resolve),
    "oidc-usermodel-realm-role-mapper": (_ROLES, _realm_roles),
    "oidc-usermodel-client-role-mapper": (_ROLES, _client_roles),
}

KNOWN_MAPPERS: Final = frozenset(_KINDS)
"""The kinds of protocol mappers that the model knows."""


def _parsed_role(text: str) -> tuple[str, str]:
    """Split ``client.role`` at its last dot; without one it is a role of the realm."""
    client, _, name = text.rpartition(".")
    return client, name
