"""A plan as a `.tf.json` file for the provider keycloak/keycloak: all that the plan would make, as resources.

Written by the provider's documentation. The tests compare it with the plan, but no test runs the provider.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import CERTIFICATE_BOUND
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.steps import (
    AddAudience,
    AssignScope,
    EnableExchange,
    EnableServiceAccount,
    GrantRole,
    MakeClient,
    MakeProvider,
    MakeRole,
    MakeScope,
    MapRole,
    RequireBinding,
    SetAuthentication,
    Step,
)

__all__ = ["by_hand", "terraform"]

_Block = Mapping[str, Any]
_COMMENT: Final = (
    "Made by s2s-fastapi plan. Not run by its authors: read what terraform plan shows before you apply it. The realm, the provider and"
    " the objects under data are not made here. No secret is in this file; Keycloak makes one for each client, and Terraform keeps it"
    " in its state. Make the file anew from the same realm file: what the file no longer names, Terraform deletes."
)
_CLIENT: Final = "keycloak_openid_client"
_SCOPE: Final = "keycloak_openid_client_scope"
_MAPPER: Final = "keycloak_openid_audience_protocol_mapper"
_DEFAULT: Final = "keycloak_openid_client_default_scopes"
_OPTIONAL: Final = "keycloak_openid_client_optional_scopes"
_ROLE: Final = "keycloak_role"
_ROLE_MAPPER: Final = "keycloak_generic_role_mapper"
_CLIENT_ROLE: Final = "keycloak_openid_client_service_account_role"
_REALM_ROLE: Final = "keycloak_openid_client_service_account_realm_role"
_KEPT: Final = {"lifecycle": {"prevent_destroy": True}}
"""Terraform makes a client, scope or role anew only if somebody takes this away: it would have another secret, or no holders."""
_NO_PROVIDER: Final = (
    "The plan has a client that proves itself by tokens of an identity provider, and the provider keycloak/keycloak has no resource for that:"
    " use --realm-json, or `apply`."
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
_NO_IDENTIFIER: Final = re.compile(r"[^A-Za-z0-9-]+")
_LONGEST: Final = 60
_DIGITS: Final = 16


def terraform(plan: Plan) -> tuple[dict[str, Any], tuple[Step, ...]]:
    """Return the file, and the steps that are not in it.

    The latter change a client that is there already. The resources for this hold the whole client, or the whole list of its scopes:
    in a second place, they would take away what the first one gives.
    """
    file = _File(plan)
    left_out = tuple(step for step in plan.steps if not file.add(step))
    return file.content(), left_out


def by_hand(step: Step) -> str:
    """Return what a step that is not in the file asks of the resource that has the client; "" if the step itself says it."""
    if isinstance(step, SetAuthentication):
        if step.provider:
            return "Terraform's provider has no resource for that: use `apply`, and let Terraform ignore the changes of client_authenticator_type."
        return f"Write in its resource: {json.dumps(_by_fields(step.authentication), ensure_ascii=False)}."
    if isinstance(step, RequireBinding) and step.certificate:
        return f"Write in its resource: {json.dumps({'extra_config': {step.attribute: 'true'}})}."
    return ""


class _File:
    """The blocks of one file. What the plan does not make is looked up in a data block."""

    def __init__(self, plan: Plan) -> None:
        self.realm = _text(plan.realm)
        self.made = {
            *((_CLIENT, step.client) for step in plan.steps if isinstance(step, MakeClient)),
            *((_SCOPE, step.scope) for step in plan.steps if isinstance(step, MakeScope)),
            *((_ROLE, step.owner, step.role) for step in plan.steps if isinstance(step, MakeRole)),
        }
        self.resources: dict[str, dict[str, _Block]] = {}
        self.data: dict[str, dict[str, _Block]] = {}

    def content(self) -> dict[str, Any]:
        blocks = {"data": self.data, "resource": self.resources}
        return {"//": _COMMENT, **{name: kinds for name, kinds in blocks.items() if kinds}}

    def add(self, step: Step) -> bool:
        """Add what a step makes. Return whether a file can hold it."""
        match step:
            case MakeScope():
                self._resource(_SCOPE, (step.scope,), name=_text(step.scope), include_in_token_scope=True, **_KEPT)
                for audience in step.audiences:
                    self._audience(step.scope, audience, custom=audience in step.custom)
            case AddAudience():
                self._audience(step.scope, step.audience, custom=step.custom)
            case MakeClient():
                self._client(step)
            case MakeRole():
                owner = {"client_id": self._client_of(step.owner, "id")} if step.owner else {}
                self._resource(_ROLE, (step.owner, step.role), name=_text(step.role), **owner, **_KEPT)
            case MapRole():
                self._resource(
                    _ROLE_MAPPER,
                    (step.client, step.owner, step.role),
                    client_id=self._client_of(step.client, "id"),
                    role_id=self._role(step.owner, step.role, "id"),
                )
            case GrantRole():
                owner = {"client_id": self._client_of(step.owner, "id")} if step.owner else {}
                self._resource(
                    _CLIENT_ROLE if step.owner else _REALM_ROLE,
                    (step.client, step.owner, step.role),
                    service_account_user_id=self._client_of(step.client, "service_account_user_id"),
                    role=self._role(step.owner, step.role, "name"),
                    **owner,
                )
            case MakeProvider():
                raise ConfigurationError(_NO_PROVIDER)
            case AssignScope() | EnableServiceAccount() | EnableExchange() | RequireBinding() | SetAuthentication():
                return False
        return True

    def _client(self, step: MakeClient) -> None:
        self._resource(
            _CLIENT,
            (step.client,),
            client_id=_text(step.client),
            enabled=True,
            access_type="CONFIDENTIAL",
            standard_flow_enabled=False,
            implicit_flow_enabled=False,
            direct_access_grants_enabled=False,
            service_accounts_enabled=step.caller,
            full_scope_allowed=False,
            **({"standard_token_exchange_enabled": True} if step.exchange else {}),
            **({"require_dpop_bound_tokens": True} if step.bound else {}),
            **_authenticator(step),
            **_KEPT,
        )
        # Both lists, also if one is empty: Keycloak gives a new client the lists of the realm, and these resources take the rest away.
        for kind, name, scopes in (
            (_DEFAULT, "default_scopes", step.default),
            (_OPTIONAL, "optional_scopes", step.optional),
        ):
            names = [self._scope(scope, "name") if (_SCOPE, scope) in self.made else _text(scope) for scope in scopes]
            self._resource(kind, (step.client,), client_id=self._client_of(step.client, "id"), **{name: names})

    def _audience(self, scope: str, audience: str, *, custom: bool) -> None:
        if custom:
            included = {"included_custom_audience": _text(audience)}
        else:
            included = {"included_client_audience": self._client_of(audience, "client_id")}
        self._resource(
            _MAPPER,
            (scope, audience),
            client_scope_id=self._scope(scope, "id"),
            name=_text(f"audience {audience}"),
            add_to_id_token=False,
            add_to_access_token=True,
            **included,
        )

    def _client_of(self, client_id: str, attribute: str) -> str:
        return self._reference(_CLIENT, (client_id,), attribute, client_id=_text(client_id))

    def _scope(self, name: str, attribute: str) -> str:
        return self._reference(_SCOPE, (name,), attribute, name=_text(name))

    def _role(self, owner: str, name: str, attribute: str) -> str:
        there = {"client_id": self._client_of(owner, "id")} if owner else {}
        return self._reference(_ROLE, (owner, name), attribute, name=_text(name), **there)

    def _reference(self, kind: str, names: tuple[str, ...], attribute: str, **found_by: Any) -> str:
        label = _label(names)
        if (kind, *names) in self.made:
            return f"${{{kind}.{label}.{attribute}}}"
        self.data.setdefault(kind, {})[label] = {"realm_id": self.realm, **found_by}
        return f"${{data.{kind}.{label}.{attribute}}}"

    def _resource(self, kind: str, names: tuple[str, ...], **arguments: Any) -> None:
        self.resources.setdefault(kind, {})[_label(names)] = {"realm_id": self.realm, **arguments}


def _authenticator(step: MakeClient) -> dict[str, Any]:
    """Return how a client without a secret logs in."""
    fields = step.authentication
    if not fields:
        return {}
    if step.provider:
        raise ConfigurationError(_NO_PROVIDER)
    switch = {CERTIFICATE_BOUND: "true"} if step.certificate_bound else {}
    return _by_fields({**fields, "attributes": {**fields["attributes"], **switch}})


def _by_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    extra = {name: _text(value) for name, value in sorted(fields["attributes"].items())}
    return {"client_authenticator_type": fields["clientAuthenticatorType"], "extra_config": extra}


def _text(name: str) -> str:
    """Return a name as Terraform reads it as that name: it evaluates what begins with ``${`` or ``%{``."""
    return name.replace("${", "$${").replace("%{", "%%{")


def _label(names: tuple[str, ...]) -> str:
    """Return how Terraform's state calls an object: the same at each making, whatever else is in the plan."""
    readable = "-".join(_NO_IDENTIFIER.sub("-", name).strip("-") for name in names if name)[:_LONGEST]
    if names[-1] == readable and _IDENTIFIER.fullmatch(readable):
        return readable
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:_DIGITS]
    return f"x-{readable}__{digest}"
