"""What an administrator sees of one service in its realm, for the checks of `doctor`. It is read and never changed.

As in `s2s_fastapi.operations.snapshot`, only the fields listed here are taken from an answer, so no secret gets into a report.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT
from s2s_fastapi.keycloak.exchange import ATTRIBUTE
from s2s_fastapi.names import name_problem
from s2s_fastapi.operations.admin import AdminError, AdminForbidden
from s2s_fastapi.operations.findings import Change
from s2s_fastapi.operations.plan import question_of, steps_of
from s2s_fastapi.operations.predicted import exchanged_claims
from s2s_fastapi.operations.snapshot import (
    Question,
    ReadApi,
    Snapshot,
    audience_of,
    binds,
    proof_of,
    providers_of,
    read_snapshot,
)
from s2s_fastapi.operations.steps import (
    AddAudience,
    AssignScope,
    EnableExchange,
    EnableServiceAccount,
    GrantRole,
    MakeClient,
    MakeProvider,
    MakeScope,
    RequireBinding,
    SetAuthentication,
    Step,
    added_mapper,
    new_client,
    new_scope,
)
from s2s_fastapi.operations.wanted import wanted
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.model import Granted
from s2s_fastapi.realm.provenance import Provenance

__all__ = ["Inspection", "inspected"]

_VIEW_CLIENTS: Final = "view-clients"
_EXPIRES: Final = "client.secret.expiration.time"
_ROTATED: Final = "client.secret.rotated"
_ROTATED_EXPIRES: Final = "client.secret.rotated.expiration.time"
_MOST_SECONDS: Final = 120.0
"""For all answers of the Admin API together."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One client, the clients that it calls, and the scopes between them."""

    client_id: str
    reader: str
    """The admin client that read it."""
    snapshot: Snapshot
    steps: tuple[Step, ...] = ()
    """The plan for the access files, if those of all called services are given."""
    secret_expires: int | None = None
    """The second at which Keycloak refuses the client's secret; None if it never does."""
    former_expires: int | None = None
    """The same for the secret that the client had before; None if there is none."""
    authorization: bool = False
    """Whether Authorization Services are on: a change without this field deletes their settings."""
    same_subject: tuple[str, ...] = ()
    """The other clients that the same token of an identity provider proves."""
    provider: Mapping[str, Any] | None = None
    """The identity provider that proves the client; None if the realm has none of this alias."""
    provider_problem: str = ""
    """Why the identity provider is not known."""
    similar: tuple[str, ...] = ()
    """If the realm has no such client: those whose ids differ in case only."""

    @property
    def client(self) -> Mapping[str, Any] | None:
        """The client; None if the realm has none of this name."""
        return self.snapshot.client(self.client_id)

    def provenance(self, scopes: Collection[str] = ()) -> Provenance | None:
        """Return where the audiences and roles of the client's token come from; None if it has no service account."""
        return self.snapshot.model.provenance(self.client_id, scope=" ".join(sorted(scopes)) or None)

    def token(self, scopes: Collection[str] = ()) -> Granted | None:
        """Return the token that Keycloak gives the client for these scopes; None if it gives none."""
        jkt = ANY_THUMBPRINT if binds(self.client or {}) else ""
        scope = " ".join(sorted(scopes)) or None
        outcome = self.snapshot.model.service_token(self.client_id, scope=scope, jkt=jkt, x5t=ANY_THUMBPRINT)
        return outcome if isinstance(outcome, Granted) else None

    def exchanged(self, scopes: Collection[str] = ()) -> Mapping[str, Any]:
        """Return the claims of a token that the client exchanges for that of a user, as if it might; empty if Keycloak refuses the scopes."""
        realm = deepcopy(dict(self.snapshot.document))
        for client in realm["clients"]:
            if client["clientId"] == self.client_id:
                client["attributes"] = {**(client.get("attributes") or {}), ATTRIBUTE: "true"}
        snapshot = self.snapshot.with_document(realm)
        return exchanged_claims(
            snapshot, self.client_id, " ".join(sorted(scopes)) or None, dpop=binds(self.client or {})
        )

    def carriers(self, audience: str) -> tuple[str, ...]:
        """Return the client scopes with an Audience mapper for an audience."""
        return tuple(
            sorted(
                name
                for name, scope in self.snapshot.scopes.items()
                if any(audience_of(mapper) == audience for mapper in scope["protocolMappers"])
            )
        )

    # What the plan changes

    def granting(self, audience: str) -> tuple[Step, ...]:
        """Return the steps that bring an audience into tokens of the client."""
        bring = {
            *self.carriers(audience),
            *(step.scope for step in self.steps if isinstance(step, MakeScope) and audience in step.audiences),
            *(step.scope for step in self.steps if isinstance(step, AddAudience) and step.audience == audience),
        }
        held = {
            *(self.client or {}).get("defaultClientScopes", ()),
            *(self.client or {}).get("optionalClientScopes", ()),
        }
        gets = {step.scope for step in self.steps if isinstance(step, AssignScope) and step.client == self.client_id}
        ours = (gets | held) & bring
        return tuple(
            step
            for step in self.steps
            if (isinstance(step, MakeScope) and step.scope in ours)
            or (isinstance(step, AddAudience) and step.scope in ours and step.audience == audience)
            or (isinstance(step, AssignScope) and step.client == self.client_id and step.scope in ours)
        )

    def making(self, client_id: str) -> tuple[Step, ...]:
        """Return the steps that make a client, and the client scopes that it gets."""
        made = [step for step in self.steps if isinstance(step, MakeClient) and step.client == client_id]
        lists = {name for step in made for name in (*step.default, *step.optional)}
        scopes = (step for step in self.steps if isinstance(step, MakeScope | AddAudience) and step.scope in lists)
        return (*scopes, *made)

    def enabling(self) -> tuple[Step, ...]:
        """Return the step that switches the service account on."""
        return tuple(
            step for step in self.steps if isinstance(step, EnableServiceAccount) and step.client == self.client_id
        )

    def exchanging(self) -> tuple[Step, ...]:
        """Return the step that lets the client exchange tokens."""
        return tuple(step for step in self.steps if isinstance(step, EnableExchange) and step.client == self.client_id)

    def binding(self) -> tuple[Step, ...]:
        """Return the step that lets the client get bound tokens only (DPoP)."""
        return tuple(
            step
            for step in self.steps
            if isinstance(step, RequireBinding) and step.client == self.client_id and not step.certificate
        )

    def giving(self, roles: Collection[Role]) -> tuple[Step, ...]:
        """Return the steps that give one of these roles to the service account."""
        return tuple(
            step
            for step in self.steps
            if isinstance(step, GrantRole) and step.client == self.client_id and Role(step.owner, step.role) in roles
        )

    def assigning(self, scope: str) -> tuple[Step, ...]:
        """Return the steps that make a client scope and assign it to the client."""
        gets = [
            step
            for step in self.steps
            if isinstance(step, AssignScope) and (step.client, step.scope) == (self.client_id, scope)
        ]
        made = [step for step in self.steps if isinstance(step, MakeScope | AddAudience) and step.scope == scope]
        return (*made, *gets) if gets else ()

    @cached_property
    def root(self) -> str:
        """The path of the realm in the Admin API."""
        return f"/admin/realms/{quote(self.snapshot.realm, safe='')}"

    def requests(self, steps: Iterable[Step]) -> tuple[Change, ...]:
        """Return steps of the plan as requests to the Admin API; none for roles, whose ids are known only after the step before."""
        return tuple(change for step in steps for change in self._requests(step))

    def _requests(self, step: Step) -> Iterator[Change]:
        match step:
            case MakeScope():
                # The id is ours, so that a later request can name what this one makes.
                yield Change(
                    "POST", f"{self.root}/client-scopes", {"id": self._scope_id(step.scope), **new_scope(step)}
                )
            case AddAudience():
                scope = self.snapshot.scope(step.scope) or {"protocolMappers": ()}
                path = f"{self.root}/client-scopes/{self._scope_id(step.scope)}/protocol-mappers/models"
                yield Change("POST", path, added_mapper(step, scope))
            case MakeClient():
                yield Change("POST", f"{self.root}/clients", new_client(step))
            case EnableServiceAccount() | EnableExchange() | RequireBinding():
                client = self.snapshot.client(step.client) or {}
                account = isinstance(step, EnableServiceAccount)
                attribute = step.attribute if isinstance(step, RequireBinding) else ATTRIBUTE
                body = {
                    "clientId": step.client,
                    "serviceAccountsEnabled": account or bool(client.get("serviceAccountsEnabled")),
                    "authorizationServicesEnabled": self.authorization,
                    **({} if account else {"attributes": {attribute: "true"}}),
                }
                yield Change("PUT", f"{self.root}/clients/{self.snapshot.ids['client', step.client]}", body)
            case AssignScope():
                page = f"{self.root}/clients/{self.snapshot.ids['client', step.client]}"
                kinds = ("optional", "default")[:: 1 if step.optional else -1]
                mine, other = (f"{page}/{kind}-client-scopes/{self._scope_id(step.scope)}" for kind in kinds)
                held = (self.snapshot.client(step.client) or {}).get(f"{kinds[1]}ClientScopes", ())
                if step.scope in held:  # a PUT alone is answered with 204 and does nothing, if it is in the other list
                    yield Change("DELETE", other)
                yield Change("PUT", mine)
            case MakeProvider():
                yield Change("POST", f"{self.root}/identity-provider/instances", step.provider.representation)
            case SetAuthentication():
                client = self.snapshot.client(step.client) or {}
                kept = {
                    "serviceAccountsEnabled": bool(client.get("serviceAccountsEnabled")),
                    "authorizationServicesEnabled": self.authorization,
                }
                path = f"{self.root}/clients/{self.snapshot.ids['client', step.client]}"
                yield Change("PUT", path, {"clientId": step.client, **kept, **step.authentication})
            case _:
                return

    def _scope_id(self, name: str) -> str:
        made = str(uuid5(NAMESPACE_URL, f"{self.snapshot.realm_id}/client-scopes/{name}"))
        return self.snapshot.ids.get(("scope", name), made)


def inspected(
    api: ReadApi,
    client_id: str,
    downstreams: Iterable[Downstream],
    *,
    apps: Iterable[AppAccess] = (),
    front_ends: Iterable[str] = (),
    realm: str,
    reader: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Inspection:
    """Read the client, the clients that it calls, and the scopes that may stand between them.

    ``apps`` are what is planned for, ``front_ends`` the clients through which users call the service.

    Raises:
        AdminForbidden: A right is missing; the sentence names it.
        AdminError: There is no such realm, or Keycloak does not answer in time.
    """
    api, apps, downstreams = _Hurried(api, clock), tuple(apps), tuple(downstreams)
    audiences = frozenset(name for each in downstreams for name in each.audiences)
    scopes = frozenset(name for each in downstreams for name in each.scopes)
    clients = frozenset((client_id, *(name for name in audiences if not name_problem(name))))
    planned = question_of(wanted(apps, realm=realm)[0])
    users = frozenset((client_id,)) if any(each.on_behalf for each in downstreams) else frozenset()
    question = Question(
        clients=clients | planned.clients | (frozenset(front_ends) if users else frozenset()),
        scopes=scopes | planned.scopes,
        audiences=audiences | planned.audiences | users,
        roles=planned.roles,
        providers=planned.providers,
    )
    snapshot = read_snapshot(api, question)
    steps = steps_of(apps, snapshot, realm)
    uuid = snapshot.ids.get(("client", client_id))
    if uuid is None:
        listed = (str(one.get("clientId", "")) for one in api.pages("clients", needs=_VIEW_CLIENTS))
        similar = tuple(sorted(name for name in listed if name.casefold() == client_id.casefold()))
        return Inspection(client_id=client_id, reader=reader, snapshot=snapshot, steps=steps, similar=similar)
    found = api.get("clients", uuid, needs=_VIEW_CLIENTS)
    attributes = (found.get("attributes") or {}) if isinstance(found, dict) else None
    if not isinstance(attributes, dict):
        raise AdminError("Keycloak answered with something else than a client: check KEYCLOAK_URL.")
    same, provider, problem = _proving(api, client_id, *proof_of(found))
    return Inspection(
        client_id=client_id,
        reader=reader,
        snapshot=snapshot,
        steps=steps,
        same_subject=same,
        provider=provider,
        provider_problem=problem,
        secret_expires=_seconds(attributes.get(_EXPIRES)),
        former_expires=_seconds(attributes.get(_ROTATED_EXPIRES)) if attributes.get(_ROTATED) else None,
        authorization=bool(found.get("authorizationServicesEnabled")),
    )


def _proving(
    api: ReadApi, client_id: str, alias: str, subject: str
) -> tuple[tuple[str, ...], Mapping[str, Any] | None, str]:
    """Return the other clients that the same token proves, and the identity provider, or why it is not known."""
    if not alias:
        return (), None, ""
    same = (
        str(one.get("clientId", ""))
        for one in api.pages("clients", needs=_VIEW_CLIENTS)
        if proof_of(one) == (alias, subject)
    )
    others = tuple(sorted(name for name in same if name != client_id))
    try:
        return others, next((one for one in providers_of(api) if one["alias"] == alias), None), ""
    except AdminForbidden as error:
        return others, None, str(error)


class _Hurried:
    """Reads as another one does, and stops if all answers together take too long: each of them may be slow."""

    def __init__(self, api: ReadApi, clock: Callable[[], float]) -> None:
        self._api, self._clock, self._end = api, clock, clock() + _MOST_SECONDS

    def get(self, *path: str, needs: str, **query: object) -> Any:
        self._look()
        return self._api.get(*path, needs=needs, **query)

    def pages(self, *path: str, needs: str, **query: object) -> Iterator[dict[str, Any]]:
        for one in self._api.pages(*path, needs=needs, **query):
            self._look()
            yield one

    def lacks(self, right: str, what: str) -> str:
        return self._api.lacks(right, what)

    def version(self) -> str:
        self._look()
        return self._api.version()

    def _look(self) -> None:
        if self._clock() > self._end:
            raise AdminError(
                f"Keycloak did not answer within {_MOST_SECONDS:g} s what is read of the realm: look at its load and at the way to it."
            )


def _seconds(value: object) -> int | None:
    """Return a time of Keycloak in seconds. It writes 0 if there is none."""
    text = str(value or "")
    return int(text) if text.isascii() and text.isdigit() and int(text) else None
