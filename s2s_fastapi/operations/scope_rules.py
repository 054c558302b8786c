"""Which client scopes a plan may give to a caller, which it may extend, and what they are called.

A client scope is two things in Keycloak: a bag of mappers, and a word in the token that a route may require. So one that was there is never
given away for its mappers alone, if an app whose file is not given may require its name.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.keycloak.exchange import ATTRIBUTE
from s2s_fastapi.operations.forbidden import forbidden_scope
from s2s_fastapi.operations.snapshot import Snapshot, audience_of, every_audience_of
from s2s_fastapi.operations.wanted import Wanted, WantedScope
from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import OIDC
from s2s_fastapi.text import listed

__all__ = ["LISTS", "ScopeRules", "built_in_problem", "flows_of", "of_scope", "of_scopes", "scope_names"]

_FLOWS: Final = {
    "standardFlowEnabled": "Standard flow",
    "implicitFlowEnabled": "Implicit flow",
    "directAccessGrantsEnabled": "Direct access grants",
}
"""The settings of a client that gets tokens of users, and their names at the console."""
_FLOW_ATTRIBUTES: Final = {
    "oauth2.device.authorization.grant.enabled": "OAuth 2.0 Device Authorization Grant",
    "oidc.ciba.grant.enabled": "OIDC CIBA Grant",
    ATTRIBUTE: "Standard Token Exchange",
    "oauth2.jwt.authorization.grant.enabled": "JWT Authorization Grant",
}
"""The same, of those that Keycloak keeps as attributes."""
LISTS: Final = ("defaultClientScopes", "optionalClientScopes")
_OF_NO_MATTER: Final = frozenset({"jsonType.label", "multivalued", "user.attribute"})
_LONGEST: Final = 200  # of the 255 characters of Keycloak's column: there is room for all that is added
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRules:
    """The rules, for the realm ``before`` the plan, and with the steps ``now``."""

    before: Snapshot
    now: Snapshot
    wanted: Wanted

    def held_by(self, client_id: str) -> frozenset[str]:
        """Return the scopes that a client has before the plan, as default or optional."""
        client = self.before.client(client_id) or {}
        return frozenset(name for kind in LISTS for name in client.get(kind, ()))

    def flows(self, client_id: str) -> bool:
        """Return whether a client logs users in: each scope that is a default one is in their tokens too."""
        return bool(self.flows_of(client_id))

    def flows_of(self, client_id: str) -> list[str]:
        """Return by which flows a client gets tokens of users, as the console names them.

        A declared exchange is none: its tokens never reach a user's machine. If they are for others too, that is a finding by itself.
        """
        declared = client_id in self.wanted.exchanges
        found = flows_of(self.now.client(client_id) or {})
        return [name for name in found if not (declared and name == _FLOW_ATTRIBUTES[ATTRIBUTE])]

    def may_have(self, client_id: str, audience: str) -> bool:
        """Return whether all tokens of a client may be for the audience: also those of users, if it logs users in."""
        granted = (client_id, audience) in self.wanted.by_hand
        reached = audience in self.wanted.reach.get(client_id, frozenset())
        return granted or (reached and not self.flows(client_id))

    def more(self, name: str, allowed: frozenset[str], *, by_hand: bool = False) -> str:
        """Return what else a scope gives to whom it is assigned, as the end of a sentence; "" if nothing but these audiences."""
        scope = self.now.scope(name) or {}
        if scope.get("protocol") != OIDC:
            return "is not for OpenID Connect"
        if by_hand:
            return ""
        mappers = scope["protocolMappers"]
        if kinds := {str(mapper["protocolMapper"]) for mapper in mappers if audience_of(mapper) is None}:
            return f"also has mappers of other kinds ({listed(kinds)})"
        if others := _every_audience(scope) - allowed:
            return f"also brings the audience {listed(others)}"
        if roles := self.now.mapped("clientScope", name):
            return f"counts only for callers with certain roles ({listed(role.name for role in roles)}), and lets these into their tokens"
        return ""

    def elsewhere(self, client_id: str, name: str) -> bool:
        """Return whether an app without a file may require a scope that was there, and would see it in a token of this client.

        Nobody else answers to the client id of an app whose file is given. To any other audience of the client such an app may answer. If
        the operator granted that audience, or the client has it already, there is one. Else there may be one, and then somebody holds the
        scope.
        """
        if not self._is_word(client_id, name):
            return False
        reached = self.wanted.reach.get(client_id, frozenset())
        possible = reached | _every_audience(self.before.scope(name) or {})
        given = self.wanted.given
        return bool(self.beyond(client_id)) or bool(possible - given and self._holders(name))

    def beyond(self, client_id: str) -> frozenset[str]:
        """Return the audiences of a client to which surely an app answers whose file is not given: it would see each scope and role too."""
        reached = self.wanted.reach.get(client_id, frozenset())
        by_hand = {audience for audience in reached if (client_id, audience) in self.wanted.by_hand}
        return frozenset(by_hand | (self.had(client_id) - reached)) - self.wanted.given

    def fits(self, client_id: str, audience: str, name: str) -> bool:
        """Return whether a scope that is there can bring the client this audience, and gives it nothing else."""
        usual = name in scope_names(audience)
        known = usual or not self._is_word(client_id, name) or self._answered(client_id)
        return known and self.fits_but_for_its_name(client_id, audience, name)

    def fits_but_for_its_name(self, client_id: str, audience: str, name: str) -> bool:
        """Return the same if no app without a file required its name."""
        return (
            audience in of_scope(self.now.scope(name) or {})
            and not forbidden_scope(name)
            and name not in self.wanted.gates
            and not self.more(name, self.wanted.reach.get(client_id, frozenset()))
        )

    def free(self, name: str, audience: str) -> bool:
        """Return whether a scope of this name can be made, or extended without giving anything to anybody else."""
        if forbidden_scope(name) or name in self.wanted.gates:
            return False
        if self.now.scope(name) is None:
            return True
        inside = self.now.holding(name)
        return (
            not self.more(name, frozenset({audience}))
            and not self.now.holders.get(name)
            and all(self.may_have(holder, audience) for holder in inside)
        )

    def why_taken(self, name: str, audience: str) -> str:
        """Return why `free` does not take a name, as the end of a sentence."""
        if forbidden_scope(name):
            return "has no name that a plan makes"
        if name in self.wanted.gates:
            return "is required by a route"
        if more := self.more(name, frozenset({audience})):
            return more
        return "is held by clients that shall not have this audience"

    def strangers(self, each: WantedScope) -> list[str]:
        """Return who else holds the scope although no declaration names it for that; nobody if the caller holds it itself."""
        if each.by_hand or each.scope in self.held_by(each.caller):
            return []
        declared = {one.caller for one in self.wanted.scopes if one.scope == each.scope and not one.by_hand}
        return sorted(self._holders(each.scope) - declared)

    def _holders(self, name: str) -> frozenset[str]:
        return self.before.holding(name).union(self.before.holders.get(name, ()))

    def _is_word(self, client_id: str, name: str) -> bool:
        """Return whether the scope was there, and would be a new word in tokens of the client."""
        scope = self.before.scope(name)
        shown = scope is not None and scope["attributes"].get("include.in.token.scope") != "false"
        return shown and name not in self.held_by(client_id)

    def _answered(self, client_id: str) -> bool:
        """Return whether only apps whose files are given answer to the audiences that a client has, or will have."""
        return self.wanted.reach.get(client_id, frozenset()) | self.had(client_id) <= self.wanted.given

    def had(self, client_id: str) -> frozenset[str]:
        """Return the audiences that a client has before the plan."""
        return of_scopes(self.before, client_id)


def of_scopes(realm: Snapshot, client_id: str) -> frozenset[str]:
    """Return the audiences that Audience mappers put into tokens of a client."""
    client = realm.client(client_id) or {}
    holders = (realm.scope(name) or {} for kind in LISTS for name in client.get(kind, ()))
    return _every_audience(client).union(*map(_every_audience, holders))


def flows_of(client: Mapping[str, Any]) -> list[str]:
    """Return by which flows a client gets tokens of users, as the console names them."""
    attributes = client.get("attributes") or {}
    return [
        *(name for flag, name in _FLOWS.items() if client.get(flag)),
        *(name for flag, name in _FLOW_ATTRIBUTES.items() if attributes.get(flag) == "true"),
    ]


def built_in_problem(scope: Mapping[str, Any]) -> str:
    """Return what a client scope with the name of one of Keycloak's own has beside the mappers of that; "" if nothing."""
    own = [_does(mapper) for mapper in builtins.scope(str(scope["name"]))["protocolMappers"]]
    return listed(str(mapper["name"]) for mapper in scope["protocolMappers"] if _does(mapper) not in own)


def _does(mapper: Mapping[str, Any]) -> tuple[object, dict[str, str]]:
    """Return what a mapper writes, whatever it is called. In which tokens it does is a matter of the version that made the realm."""
    config = {
        name: str(value)
        for name, value in mapper["config"].items()
        if value and not name.endswith(".claim") and name not in _OF_NO_MATTER
    }
    return mapper["protocolMapper"], config


def _every_audience(holder: Mapping[str, Any]) -> frozenset[str]:
    return frozenset().union(*map(every_audience_of, holder.get("protocolMappers", ())))


def of_scope(scope: Mapping[str, Any]) -> frozenset[str]:
    """Return the audiences that the mappers of a scope, or of a client itself, bring."""
    return frozenset(audience for mapper in scope.get("protocolMappers", ()) if (audience := audience_of(mapper)))


def scope_names(audience: str) -> tuple[str, ...]:
    """Return the names of a new scope for an audience, in the order in which they are tried.

    Keycloak takes ASCII without spaces, quotes and backslashes, at most 255 characters. An audience that is changed for that gets a number
    made from the whole of it: so two audiences never have one name.
    """
    plain = "".join(char if "!" <= char <= "~" and char not in '"\\' else "_" for char in audience)[:_LONGEST]
    if plain != audience:
        plain = f"{plain}-{hashlib.sha256(audience.encode()).hexdigest()[:_DIGITS]}"
    return tuple(f"{plain}-audience{suffix}" for suffix in ("", "-2", "-3"))
