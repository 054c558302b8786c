"""A plan is carried out: exactly its steps, and only if the realm still looks as it did when the plan was made.

Keycloak has no locks and checks little. So everything is read again before and after, and nothing is believed because of a 204. An
`apply` that is interrupted leaves what was done so far; the next plan has the rest.
"""

import hmac
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import alias_in_use, same_subject
from s2s_fastapi.keycloak.exchange import ATTRIBUTE
from s2s_fastapi.operations.admin import AdminConflict, AdminError, AdminForbidden, AdminTarget
from s2s_fastapi.operations.forbidden import forbidden_audience, forbidden_client, forbidden_role, forbidden_scope
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.predicted import same_claims
from s2s_fastapi.operations.secret_files import folder_problem, write_secret
from s2s_fastapi.operations.snapshot import ReadApi, Snapshot, audience_of, read_snapshot
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
    added_mapper,
    new_client,
    new_scope,
)
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.text import named, printable

__all__ = ["WriteApi", "apply_plan"]

_MANAGE_CLIENTS: Final = "manage-clients"
_MANAGE_USERS: Final = "manage-users"
_MANAGE_REALM: Final = "manage-realm"
_MANAGE_PROVIDERS: Final = "manage-identity-providers"
_BUILT_IN: Final = frozenset({"basic", "roles", "service_account"})
"""The scopes of Keycloak's own that a plan assigns to a caller, and never changes."""
_IN_SCOPE: Final = "include.in.token.scope"
_LONGEST_PATH: Final = 4096
_NO_CLIENT: Final = ("", "")


class WriteApi(ReadApi, Protocol):
    """Reads and writes: see `s2s_fastapi.operations.admin.AdminApi`."""

    @property
    def target(self) -> AdminTarget:
        """Which realm of which server it is."""

    def surely_lacks(self, right: str) -> bool:
        """Return whether the admin client's own token shows that a right is missing."""

    def post(self, *path: str, needs: str, body: object = None) -> str:
        """Send a POST, and return the id of what was made."""

    def put(self, *path: str, needs: str, body: object = None) -> None:
        """Send a PUT."""

    def delete(self, *path: str, needs: str, body: object = None) -> None:
        """Send a DELETE."""


def apply_plan(
    plan: Plan,
    api: WriteApi,
    *,
    again: Callable[[Snapshot, AdminTarget], Plan] | None = None,
    begin: Callable[[], object] = str,
    done: Callable[[Step], object] = str,
) -> None:
    """Carry out a plan. ``again`` makes the plan anew for the realm that was read.

    ``begin`` is called before the first step, if the plan may be carried out; ``done`` after each step.

    Raises:
        ConfigurationError: The plan is for another realm, asks for what is forbidden, is not what ``again`` makes, or the realm has
            changed. Nothing was written.
        AdminError: Keycloak refused a step, or the result is not the promised one. What was done stays.
    """
    applying = _Applying(plan, api, again)
    begin()
    applying.run(done)


class _Applying:
    def __init__(self, plan: Plan, api: WriteApi, again: Callable[[Snapshot, AdminTarget], Plan] | None) -> None:
        self.plan = plan
        self.api = api
        self.again = again
        self.realm = self._checked()
        self.ids = dict(self.realm.ids)

    def run(self, done: Callable[[Step], object]) -> None:
        for step in self.plan.steps:
            try:
                self._carry_out(step)
            except AdminConflict as error:
                problem = str(error)
                # Somebody was faster, or an earlier try got through although its answer was lost.
                self.realm = read_snapshot(self.api, self.plan.question)
                self.ids = dict(self.realm.ids)
                if not _made(step, self.realm) or any(_forbidden(each, self.realm) for each in self.plan.steps):
                    raise AdminError(f"{problem} It is not what the plan makes: make the plan again.") from None
            done(step)
        after = read_snapshot(self.api, self.plan.question)
        missing = [str(step) for step in self.plan.steps if not step.holds(after)]
        if missing:
            raise AdminError(
                f"Keycloak accepted every step, and the realm does not have the result of {len(missing)}: {missing[0]} Make the plan again."
            )
        self._kept(after)

    def _kept(self, after: Snapshot) -> None:
        """Look whether the tokens are those that the plan promised: a scope or a role may have changed after it was read.

        Raises:
            AdminError: One is another.
        """
        for step in self.plan.steps:
            if problem := _forbidden(step, after):
                raise AdminError(
                    f"Somebody changed the realm in the meantime, and this step should not be there: {step} The reason: {problem}. Take it back by hand."
                )
        for token in self.plan.tokens:
            if not same_claims(token.after, token.claims_in(after)):
                request = " on behalf of users" if token.exchanged_for else ""
                request += f" with the scope {named(token.request)}" if token.request else ""
                raise AdminError(
                    f"Every step is done, and the token of {named(token.caller)}{request} is not the promised one: somebody changed the realm"
                    " in the meantime. Make the plan again: it shows the token as it is now."
                )

    def _checked(self) -> Snapshot:
        """Return the realm as it is now, if the plan may be carried out there."""
        plan, target = self.plan, self.api.target
        for what, mine, its in (
            ("server", plan.server, target.server),
            ("realm", plan.realm, target.realm),
            ("issuer", plan.issuer, target.issuer),
        ):
            if mine != its:
                raise ConfigurationError(
                    f"The plan was made for the {what} {named(mine)}, and this is {named(its)}: nothing was changed."
                )
        if plan.forbidden:
            raise ConfigurationError(
                "The plan has findings of the level “forbidden”: nothing was changed. Correct the access files first."
            )
        realm = read_snapshot(self.api, plan.question)
        if realm.realm_id != plan.realm_id:
            raise ConfigurationError(
                "The plan was made for another realm of this name (its id differs): make it again. Nothing was changed."
            )
        if realm.version != plan.keycloak:
            raise ConfigurationError(
                f"The plan was made for Keycloak {named(plan.keycloak)}, and this is {named(realm.version)}: make it again. Nothing was changed."
            )
        if realm.hash != plan.hash:
            raise ConfigurationError(
                "The realm has changed since the plan was made: make the plan again. Nothing was changed."
            )
        for step in plan.steps:
            if isinstance(step, MapRole | GrantRole) and Role(step.owner, step.role) not in plan.question.roles:
                problem = f"what the role {named(step.role)} contains was not read"
            else:
                problem = _forbidden(step, realm)
            if problem:
                raise ConfigurationError(f"The plan has a step that no plan has: {problem}. Nothing was changed.")
        # With Keycloak's fine-grained permissions, rights come without these roles.
        for step in () if realm.document.get("adminPermissionsEnabled") else plan.steps:
            if self.api.surely_lacks(_needs(step)):
                what = f"carry out this step: {str(step).removesuffix('.')}"
                raise AdminForbidden(f"{self.api.lacks(_needs(step), what)} Nothing was changed.")
        for folder in sorted(
            {Path(step.secret_file).parent for step in plan.steps if isinstance(step, MakeClient) and step.secret_file}
        ):
            if problem := folder_problem(folder):
                raise ConfigurationError(f"{problem} Nothing was changed.")
        # A saved plan is a file: somebody may have written it by hand.
        if self.again is not None and _text(found := self.again(realm, target)) != _text(plan):
            raise ConfigurationError(
                "The plan is not what its access files and grants ask for: it was changed, or another s2s-fastapi made it."
                f"{self._folders(found)} Make it again. Nothing was changed."
            )
        return realm

    def _folders(self, found: Plan) -> str:
        """Say into which folder the secrets of the plan go, and into which they would go now, if these differ."""
        was, now = (
            {
                str(Path(step.secret_file).parent)
                for step in plan.steps
                if isinstance(step, MakeClient) and step.secret_file
            }
            for plan in (self.plan, found)
        )
        if was and now and was != now:
            before, here = (printable(", ".join(sorted(folders)), _LONGEST_PATH) for folders in (was, now))
            return (
                f" Its secrets go to {before}, and here they would go to {here}: was it made in another folder? --secrets {shlex.quote(before)}"
                " names the same one."
            )
        return " Or the folder for secrets has a new file since then." if was else ""

    # The steps

    def _carry_out(self, step: Step) -> None:
        match step:
            case MakeProvider():
                body = step.provider.representation
                self.api.post("identity-provider", "instances", needs=_MANAGE_PROVIDERS, body=body)
            case MakeScope():
                self.ids["scope", step.scope] = self.api.post(
                    "client-scopes", needs=_MANAGE_CLIENTS, body=new_scope(step)
                )
            case AddAudience():
                body = added_mapper(step, self.realm.scope(step.scope) or {"protocolMappers": ()})
                self.api.post(
                    "client-scopes",
                    self._id("scope", step.scope),
                    "protocol-mappers",
                    "models",
                    needs=_MANAGE_CLIENTS,
                    body=body,
                )
            case MakeClient():
                self._make_client(step)
            case EnableServiceAccount():
                self._change(step.client, serviceAccountsEnabled=True)
            case EnableExchange():
                self._change(step.client, attributes={ATTRIBUTE: "true"})
            case RequireBinding():
                self._change(step.client, attributes={step.attribute: "true"})
            case SetAuthentication():
                self._change(step.client, **step.authentication)
            case AssignScope():
                self._assign(step)
            case MakeRole():
                where = ("clients", self._id("client", step.owner), "roles") if step.owner else ("roles",)
                self.api.post(*where, needs=_needs(step), body={"name": step.role})
            case MapRole():
                place = ("clients", self._id("client", step.client), "scope-mappings", *self._owner(step.owner))
                self.api.post(*place, needs=_MANAGE_CLIENTS, body=[self._role(step.owner, step.role)])
            case GrantRole():
                place = ("users", self._account(step.client), "role-mappings", *self._owner(step.owner))
                self.api.post(*place, needs=_MANAGE_USERS, body=[self._role(step.owner, step.role)])

    def _make_client(self, step: MakeClient) -> None:
        body = new_client(step)
        if not step.secret_file:
            self.ids["client", step.client] = self.api.post("clients", needs=_MANAGE_CLIENTS, body=body)
            return
        file = Path(step.secret_file)
        # First the file: a client whose secret nobody has is of no use, and its owner would make another one.
        secret = write_secret(file)
        problem: AdminError | None = None
        try:
            self.ids["client", step.client] = self.api.post(
                "clients", needs=_MANAGE_CLIENTS, body={**body, "secret": secret}
            )
        except AdminForbidden:
            file.unlink(missing_ok=True)  # no client was made with this secret
            raise
        except AdminError as error:
            problem = error
        if problem is None and not self.realm.rotating:
            return
        uuid, theirs = found = self._secret_of(step.client)
        if theirs and hmac.compare_digest(theirs.encode(), secret.encode()):
            # Nobody else knows the secret: so this very request made the client, although its answer was lost or is of a second try.
            self.ids["client", step.client] = uuid
            return
        shown = printable(step.secret_file, _LONGEST_PATH)
        if isinstance(problem, AdminConflict) and (theirs or found == _NO_CLIENT):
            file.unlink(missing_ok=True)  # the client is somebody else's
            raise problem
        raise AdminError(
            f"{problem or 'Keycloak changed the secret of the new client.'} It is not known whether the client {named(step.client)} has the"
            f" secret in {shown}, which is kept. Look at its page Credentials: if there is no such client, delete the file. If its secret is"
            " another one, write that into the file. Then make the plan again."
        )

    def _secret_of(self, client_id: str) -> tuple[str, str]:
        """Return Keycloak's id and the secret of a client, only to compare it; the secret is empty if it cannot be read."""
        uuid = "unknown"
        try:
            clients = self.api.get("clients", needs="view-clients", clientId=client_id)
            uuid = next((str(one["id"]) for one in clients if one["clientId"] == client_id), "")
            if not uuid:
                return _NO_CLIENT
            return uuid, str(self.api.get("clients", uuid, needs="view-clients").get("secret") or "")
        except AdminError:
            return uuid, ""

    def _change(self, client_id: str, **changes: object) -> None:
        client = self._id("client", client_id)
        found = self.api.get("clients", client, needs="view-clients")
        # A merge: what is not named stays, with two exceptions. 26.0 loses the roles of the service account without the one, and
        # every version deletes all authorization settings of the client without the other.
        body = {
            "clientId": client_id,
            "serviceAccountsEnabled": bool(found.get("serviceAccountsEnabled")),
            "authorizationServicesEnabled": bool(found.get("authorizationServicesEnabled")),
            **changes,
        }
        self.api.put("clients", client, needs=_MANAGE_CLIENTS, body=body)

    def _assign(self, step: AssignScope) -> None:
        client = self._id("client", step.client)
        scope = self._id("scope", step.scope)
        mine, other = (
            ("clients", client, f"{kind}-client-scopes", scope)
            for kind in (("optional", "default") if step.optional else ("default", "optional"))
        )
        moved = step.scope in self._held(step.client, optional=not step.optional)
        if moved:  # a PUT alone is answered with 204 and does nothing, if the scope is in the other list
            self.api.delete(*other, needs=_MANAGE_CLIENTS)
        try:
            self.api.put(*mine, needs=_MANAGE_CLIENTS)
        except BaseException as error:
            if not moved:
                raise
            said = self._put_back(step, other)
            if not isinstance(error, AdminError):  # somebody ended the command
                raise
            raise type(error)(f"{error} {said}") from None

    def _held(self, client_id: str, *, optional: bool) -> tuple[str, ...]:
        client = self.realm.client(client_id) or {}
        return tuple(client.get("optionalClientScopes" if optional else "defaultClientScopes", ()))

    def _put_back(self, step: AssignScope, other: tuple[str, ...]) -> str:
        """Put a scope back into the list from which it was taken, and say whether it is there."""
        what = f"the client scope {named(step.scope)} of {named(step.client)}"
        kind = "Default" if step.optional else "Optional"
        try:
            self.api.put(*other, needs=_MANAGE_CLIENTS)
        except AdminError:
            return f"Now {what} is in neither list: assign it as {kind} again, or make the plan again."
        return f"As before, {what} is {kind}."

    # Keycloak's ids

    def _id(self, *key: str) -> str:
        found = self.ids.get(key, "")
        if not found and key[0] == "client":
            clients = self.api.get("clients", needs="view-clients", clientId=key[1])
            found = next((str(one["id"]) for one in clients if one["clientId"] == key[1]), "")
        if not found:
            raise AdminError(f"The {key[0]} {named(key[1])} is not there any more: make the plan again.")
        self.ids[key] = found
        return found

    def _owner(self, owner: str) -> tuple[str, ...]:
        return ("clients", self._id("client", owner)) if owner else ("realm",)

    def _role(self, owner: str, name: str) -> dict[str, str]:
        key = ("role", owner, name)
        if key not in self.ids:
            at = ("clients", self._id("client", owner), "roles") if owner else ("roles",)
            for role in self.api.pages(*at, needs="view-clients" if owner else "view-realm"):
                if role["name"] == name:
                    self.ids[key] = str(role["id"])
        if key not in self.ids:
            raise AdminError(f"The role {named(name)} is not there any more: make the plan again.")
        return {"id": self.ids[key], "name": name}

    def _account(self, client_id: str) -> str:
        key = ("account", client_id)
        if key not in self.ids:
            account = self.api.get(
                "clients", self._id("client", client_id), "service-account-user", needs="view-clients"
            )
            self.ids[key] = str(account["id"])
        return self.ids[key]


def _needs(step: Step) -> str:
    """Return the right that a step takes."""
    match step:
        case MakeRole() if not step.owner:
            return _MANAGE_REALM
        case GrantRole():
            return _MANAGE_USERS
        case MakeProvider():
            return _MANAGE_PROVIDERS
        case _:
            return _MANAGE_CLIENTS


def _made(step: Step, realm: Snapshot) -> bool:
    """Return whether somebody else made exactly what a step makes: neither less nor more."""
    match step:
        case MakeScope():
            found = realm.scope(step.scope)
            expected = new_scope(step)
            return (
                found is not None
                and found["protocol"] == expected["protocol"]
                and sorted(audience_of(mapper) or "" for mapper in found["protocolMappers"]) == sorted(step.audiences)
                and found["attributes"].get(_IN_SCOPE, "true") == expected["attributes"][_IN_SCOPE]
                and not realm.mapped("clientScope", step.scope)
                and not realm.holders.get(step.scope)
                and not realm.holding(step.scope)
            )
        case MakeClient():
            return False  # its secret is not the one in our file
        case MakeRole():
            role = Role(step.owner, step.role)
            return realm.has_role(role) and not realm.inside(role)
        case _:
            return step.holds(realm)


def _text(plan: Plan) -> str:
    return json.dumps(plan.as_json(), sort_keys=True)


def _forbidden(step: Step, realm: Snapshot) -> str:
    """Return why a step is none that a plan may have. A saved plan is a file: somebody may have written it by hand."""
    match step:
        case MakeProvider():
            others = (
                [] if realm.provider(step.alias) else [name for alias, _, name in realm.subjects if alias == step.alias]
            )
            problems = [step.provider.problem, alias_in_use(step.alias, others) if others else ""]
        case MakeScope() | AddAudience():
            audiences = step.audiences if isinstance(step, MakeScope) else (step.audience,)
            problems = [forbidden_scope(step.scope), *(forbidden_audience(name, realm.realm) for name in audiences)]
            if isinstance(step, AddAudience) and realm.holders.get(step.scope):
                problems.append(f"the client scope {named(step.scope)} is held by clients outside of the plan")
        case MakeClient():
            problems = [forbidden_client(step.client, realm.realm)]
            problems += [forbidden_scope(name) for name in (*step.default, *step.optional) if name not in _BUILT_IN]
            problems += [_proves_another(step, realm)]
        case EnableServiceAccount() | EnableExchange() | RequireBinding():
            problems = [forbidden_client(step.client, realm.realm)]
        case SetAuthentication():
            problems = [forbidden_client(step.client, realm.realm), _proves_another(step, realm)]
        case AssignScope():
            problems = [forbidden_client(step.client, realm.realm)]
            problems += [forbidden_scope(step.scope)] * (step.scope not in _BUILT_IN)
        case MakeRole():
            problems = [forbidden_role(Role(step.owner, step.role), realm.realm)]
        case MapRole() | GrantRole():
            role = Role(step.owner, step.role)
            problems = [
                forbidden_client(step.client, realm.realm),
                forbidden_role(role, realm.realm, realm.inside(role)),
            ]
    return next(filter(None, problems), "")


def _proves_another(step: MakeClient | SetAuthentication, realm: Snapshot) -> str:
    """Return why this token may not prove the client: Keycloak stores several clients with it, and refuses them or goes on with the one that it knows."""
    others = (
        [name for name in realm.proven(step.provider, step.subject) if name != step.client] if step.provider else []
    )
    return same_subject(step.provider, step.subject, others) if others else ""
