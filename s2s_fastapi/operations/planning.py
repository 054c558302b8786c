"""How a plan is made: what a realm lacks, as steps in order, and what no step of a plan changes, as findings."""

from collections.abc import Collection, Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Final, TypedDict

from s2s_fastapi.keycloak import dpop
from s2s_fastapi.keycloak.client_authentication import (
    CERTIFICATE,
    CERTIFICATE_BOUND,
    COMPARES_AUTHORITY,
    ByFederation,
    ClientAuthentication,
    accept_certificate_first,
    any_authority,
    bind_to_certificate_first,
)
from s2s_fastapi.keycloak.exchange import SINCE
from s2s_fastapi.operations.federation import obstacle
from s2s_fastapi.operations.forbidden import forbidden_role, forbidden_scope
from s2s_fastapi.operations.predicted import Predicted, Users, token_findings, users_of
from s2s_fastapi.operations.relations import certificate_notes
from s2s_fastapi.operations.scope_rules import (
    LISTS,
    ScopeRules,
    built_in_problem,
    of_scope,
    of_scopes,
    scope_names,
)
from s2s_fastapi.operations.snapshot import Snapshot, binds, binds_to_certificate, exchanges
from s2s_fastapi.operations.steps import (
    ORDER,
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
from s2s_fastapi.operations.wanted import (
    RealmFinding,
    Severity,
    Wanted,
    WantedCall,
    WantedRole,
    WantedScope,
    granting,
    replacing,
)
from s2s_fastapi.realm.entities import OIDC, Role
from s2s_fastapi.text import listed, named

__all__ = ["Planning"]

_MOST_NAMES: Final = 20


class Planning:
    """The work of making one plan. ``now`` is the realm with all steps that were found so far."""

    def __init__(self, snapshot: Snapshot, wanted: Wanted, findings: Iterable[RealmFinding]) -> None:
        self.before = snapshot
        # Copied once. Each step changes it, and `now` is made anew, because a snapshot remembers what it looked up.
        self.document = deepcopy(dict(snapshot.document))
        self.now = snapshot.with_document(self.document)
        self.findings: dict[RealmFinding, None] = dict.fromkeys(findings)
        self.wanted = self._without_exchanges(self._without_claims(wanted))
        self.steps: list[Step] = []
        self.usable: set[str] = set()
        """The clients that exist, or will, and are what a plan may work with."""

    @property
    def rules(self) -> ScopeRules:
        """The rules for client scopes, with the steps that were found so far."""
        return ScopeRules(before=self.before, now=self.now, wanted=self.wanted)

    def run(self) -> None:
        """Find the steps and the findings."""
        wanted = self.wanted
        policies = (
            f"the client policy {named(one['name'])} may change tokens"
            for one in self.before.document["clientPolicies"]["policies"]
        )
        for note in (*self.before.notes, *policies):
            self._say(Severity.NOTE, f"The predicted tokens may be wrong: {note}.")
        for client_id, calls in wanted.clients.items():
            self._client(client_id, calls=calls)
        self._held()
        for each in wanted.scopes:
            if each.caller in self.usable:
                self._scope(each)
        for role in wanted.roles:
            if role.caller in self.usable:
                self._role(role)
        for call in wanted.calls:
            if call.caller in self.usable:
                self._call(call)
        self._built_in_scopes()
        self._users()
        self._bound()
        self._bound_to_certificates()
        self._first()
        self._rotated()
        for finding in token_findings(self.now, self.wanted, self.usable):
            self.findings[finding] = None

    def ordered(self) -> list[Step]:
        """Return the steps in the order in which they are carried out. A new client is made with all of its scopes."""
        made = {step.client for step in self.steps if isinstance(step, MakeClient)}
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, AssignScope | EnableExchange | RequireBinding) and step.client in made:
                continue
            if isinstance(step, MakeClient):
                client = self.now.client(step.client) or {}
                lists = {name: tuple(sorted(client.get(name, ()))) for name in LISTS}
                default, optional = (lists[name] for name in LISTS)
                steps.append(
                    replace(
                        step,
                        default=default,
                        optional=optional,
                        exchange=exchanges(client),
                        bound=binds(client),
                        certificate_bound=binds_to_certificate(client),
                    )
                )
            else:
                steps.append(step)
        return sorted(steps, key=lambda step: ORDER.index(type(step)))

    def tokens(self) -> tuple[Predicted, ...]:
        """Return the tokens of all calls, before and after."""
        requests = {
            (call.caller, call.request or "", call.exchanged_for, call.dpop): Predicted(
                caller=call.caller, request=call.request, exchanged_for=call.exchanged_for, dpop=call.dpop
            )
            for call in self.wanted.calls
            if call.caller in self.usable
        }
        return tuple(
            replace(token, before=token.claims_in(self.before), after=token.claims_in(self.now))
            for _, token in sorted(requests.items(), key=lambda one: one[0])
        )

    def _say(self, level: Severity, text: str) -> None:
        self.findings[RealmFinding(level, text)] = None

    def _do(self, step: Step) -> None:
        if not step.holds(self.now):
            self.steps.append(step)
            step.on(self.document)
            self.now = self.before.with_document(self.document)

    # What only the realm shows

    def _without_claims(self, wanted: Wanted) -> Wanted:
        """Return what is wanted without the audiences that are a client of the realm whose app is not given: no other app speaks for it."""
        claimed = {
            (caller, audience)
            for caller, audiences in wanted.reach.items()
            for audience in audiences
            if audience not in wanted.given
            and (caller, audience) not in wanted.by_hand
            and self.before.client(audience) is not None
        }
        for caller, audience in claimed:
            self._say(
                Severity.OPEN,
                f"{named(caller)} calls {named(audience)}, which is a client of the realm, and another app says that it is this audience. Give"
                f" the access file of {named(audience)}; or {granting(caller, audience=audience)} grants the audience.",
            )
        calls = (
            (call, tuple(name for name in call.audiences if (call.caller, name) not in claimed))
            for call in wanted.calls
        )
        return replace(
            wanted,
            calls=tuple(
                replace(call, audiences=left, carriers=call.carriers if left else ())
                for call, left in calls
                if left or call.scopes
            ),
            reach={
                caller: frozenset(name for name in audiences if (caller, name) not in claimed)
                for caller, audiences in wanted.reach.items()
            },
        )

    def _without_exchanges(self, wanted: Wanted) -> Wanted:
        """Return what is wanted without the calls on behalf of users, if the server exchanges no tokens."""
        if not wanted.exchanges or self.before.model.version >= SINCE:
            return wanted
        self._say(
            Severity.OPEN,
            f"{listed(wanted.exchanges)} calls on behalf of users, and that needs the token exchange of Keycloak {'.'.join(map(str, SINCE))} or newer: this server is"
            f" {self.before.version}, so nothing is planned for these calls.",
        )
        calls = tuple(call for call in wanted.calls if not call.on_behalf)
        reach = {
            caller: frozenset(name for call in calls if call.caller == caller for name in call.audiences)
            for caller in wanted.reach
        }
        requested = {(call.caller, name) for call in calls for name in call.scopes}
        return replace(
            wanted,
            calls=calls,
            scopes=tuple(
                each
                for each in wanted.scopes
                if each.by_hand or not each.optional or (each.caller, each.scope) in requested
            ),
            reach={caller: names for caller, names in reach.items() if names},
            exchanges={},
        )

    def _held(self) -> None:
        """Say which callers hold what a route requires although nobody names them for it."""
        for client_id in sorted(self.wanted.clients):
            client = self.before.client(client_id)
            if client is None:
                continue
            scopes = self.rules.held_by(client_id) & self.wanted.gates
            scopes -= {each.scope for each in self.wanted.scopes if each.caller == client_id}
            roles = self._roles_of(client_id) & self.wanted.gate_roles
            roles -= {each.role for each in self.wanted.roles if each.caller == client_id}
            things: list[tuple[str, str | Role]] = [
                *((f"the client scope {named(name)}", name) for name in sorted(scopes) if not forbidden_scope(name)),
                *((f"the role {named(role.name)}", role) for role in sorted(roles)),
            ]
            for shown, what in things:
                self._say(
                    Severity.OPEN,
                    f"{named(client_id)} has {shown}, which a route requires, and no declaration names it for that. Take it away, or"
                    f" {granting(client_id, what)} says that it is right.",
                )

    def _roles_of(self, client_id: str) -> frozenset[Role]:
        held = self.before.granted(client_id)
        return held.union(*map(self.before.inside, held))

    # Clients

    def _client(self, client_id: str, *, calls: bool) -> None:
        who, client = named(client_id), self.now.client(client_id)
        exchange = self.wanted.exchanges.get(client_id)
        # A client that is there and only exchanges tokens needs no service account.
        account = calls and (client is None or exchange is None or not exchange.alone)
        # Keycloak itself gives this scope to every service account that is made.
        odd = self._built_in("service_account") if account and not (client or {}).get("serviceAccountsEnabled") else ""
        if odd:
            self._say(
                Severity.OPEN,
                f"{who} has no service account yet, and it would have the client scope {odd}: nothing is planned for it.",
            )
            return
        if client is None:
            if not self._provable(client_id):
                return
            default = self._there("basic") if not self._built_in("basic") else ()
            self._do(
                MakeClient(client=client_id, caller=calls, default=default, **_proof(self._authentication(client_id)))
            )
            self.usable.add(client_id)
            if exchange is not None:
                self._do(EnableExchange(client=client_id))
            return
        if client.get("protocol", OIDC) != OIDC:
            self._say(Severity.OPEN, f"The client {who} is not for OpenID Connect, so its tokens cannot be planned.")
            return
        if client.get("enabled") is False:
            self._say(Severity.OPEN, f"The client {who} is disabled: it gets no token. It is not changed.")
            return
        flows = self.rules.flows_of(client_id)
        if flows:
            self._say(
                Severity.NOTE,
                f"The client {who} has login flows on ({', '.join(flows)}): a service needs none. They are not changed.",
            )
        if not calls:
            self.usable.add(client_id)
            return
        if client.get("publicClient") or client.get("bearerOnly"):
            kind = "public (“Client authentication” is off)" if client.get("publicClient") else "bearer-only"
            self._say(
                Severity.OPEN,
                f"The client {who} is {kind}, so it cannot have a service account: nothing is planned for it.",
            )
            return
        if client.get("fullScopeAllowed", True):
            self._say(
                Severity.NOTE,
                f"“Full scope allowed” of the client {who} is on: its tokens hold every role of its service account, and more audiences"
                " by Audience Resolve. It is not changed.",
            )
        needed = self.wanted.reach.get(client_id, frozenset())
        by_hand = needed and all((client_id, audience) in self.wanted.by_hand for audience in needed)
        if flows and account and not client.get("serviceAccountsEnabled") and not by_hand:
            grants = " ".join(granting(client_id, audience=audience) for audience in sorted(needed or {"NAME"}))
            self._say(
                Severity.OPEN,
                f"The client {who} logs users in and has no service account, so perhaps it is no service: nothing is planned for it."
                f" {grants} switches the account on.",
            )
            return
        self.usable.add(client_id)
        self._authenticate(client_id, flows)
        if account and not client.get("serviceAccountsEnabled"):
            self._do(EnableServiceAccount(client=client_id))
        if exchange is not None:
            self._do(EnableExchange(client=client_id))

    # Clients without a secret

    def _authentication(self, client_id: str) -> ClientAuthentication | None:
        return self.wanted.authentication.get(client_id)

    def _authenticate(self, client_id: str, flows: Collection[str]) -> None:
        """Let a client that is there log in as its access file says, if an operator says so too."""
        how, who = self._authentication(client_id), named(client_id)
        if how is None:
            return
        step = SetAuthentication(client=client_id, **_proof(how))
        if step.holds(self.now):
            self._provable(client_id)  # says what is not as it should be
        elif flows:
            self._say(
                Severity.OPEN,
                f"{who} logs users in ({', '.join(flows)}), and its way to log in is not changed: make a client of its own for the service.",
            )
        elif client_id not in self.wanted.replaced:
            # Whoever writes the access file of a client that is there would otherwise get all its rights.
            self._say(
                Severity.OPEN,
                f"The client {who} is there, and logs in in another way than its access file says. It is not changed. {replacing(client_id)} changes it.",
            )
        elif self._provable(client_id):
            self._do(step)
            self._say(
                Severity.NOTE,
                f"CHECK THIS: after this plan {who} logs in by nothing else than {how}. A process of {who} that is started otherwise gets no"
                " token from then on.",
            )

    def _provable(self, client_id: str) -> bool:
        """See to it that the realm has the identity provider that proves a client. Return whether it has, and proves no other client so."""
        if client_id in self.wanted.conflicting:
            return False
        how = self._authentication(client_id)
        if not isinstance(how, ByFederation):
            return True
        if (found := obstacle(self.now, client_id, how, replaced=self._replaced(how))) is not None:
            self.findings[found] = None
            return False
        provider = how.provider
        if self.now.provider(provider.alias) is not None:
            return True
        self._do(MakeProvider(alias=provider.alias, kind=provider.kind, issuer=provider.issuer, keys=provider.keys))
        preview = " Keycloak has this type only with --features=spiffe (preview)." if provider.kind == "spiffe" else ""
        self._say(
            Severity.NOTE,
            f"CHECK THIS: the identity provider {named(provider.alias)} is new. Whoever makes tokens for {named(provider.issuer)} can log in as each"
            f" client that it proves.{preview}",
        )
        if provider.caution:
            self._say(Severity.NOTE, f"CHECK THIS: {provider.caution}.")
        return True

    def _replaced(self, how: ByFederation) -> frozenset[str]:
        """Return the clients whose access files name the same identity provider, and of which an operator says that they log in so."""
        authentication = self.wanted.authentication
        return frozenset(
            name
            for name in self.wanted.replaced
            if isinstance(other := authentication.get(name), ByFederation) and other.provider == how.provider
        )

    # Users

    def _users(self) -> None:
        """Say what the users need on whose behalf a caller calls: no plan changes the clients that log them in, and what users may do."""
        for client_id, exchange in self.wanted.exchanges.items():
            if client_id not in self.usable:
                continue
            who = named(client_id)
            for role in exchange.roles:
                shown = (
                    f"{named(role.name)} of {named(role.client)}" if role.client else f"{named(role.name)} of the realm"
                )
                self._say(
                    Severity.NOTE,
                    f"Users on whose behalf {who} calls need the role {shown}, and no plan gives roles to users. If “Full scope allowed” of {who}"
                    f" is off, also add it to the scope of {who} (Clients, {who}, Client scopes, {named(client_id + '-dedicated')}, Scope).",
                )
            through = [name for name in exchange.through if name != client_id]
            for name in through:
                self._logging_in(client_id, name)
            if not through:
                self._say(
                    Severity.NOTE,
                    f"{who} exchanges the tokens of users, which must have {who} in aud: each client that logs users in for it needs a client"
                    f" scope with an Audience mapper for {who}. No route of {who} names one in require_user(...), so this was not looked at.",
                )

    def _logging_in(self, client_id: str, front_end: str) -> None:
        """Look whether the tokens of a client that logs users in are for the caller that exchanges them."""
        who, name = named(client_id), named(front_end)
        if front_end in self.wanted.clients and client_id in self.wanted.reach.get(front_end, frozenset()):
            return  # it calls this one on behalf of users too: its calls are planned
        users = users_of(self.before, front_end, client_id)
        if users is Users.NO_CLIENT:
            self._say(
                Severity.OPEN,
                f"{who} lets in users through {name}, and the realm has no such client: there is no user on whose behalf {who} could call.",
            )
        elif users is Users.ON_REQUEST:
            self._say(
                Severity.NOTE,
                f"The tokens of users of {name} are for {who} only if {name} requests the Optional client scope that brings it. {who} can exchange"
                " no other ones.",
            )
        elif users is Users.NEVER:
            self._say(
                Severity.OPEN,
                f"{who} lets in users through {name}, and no client scope puts {who} into aud of their tokens: {who} can neither accept nor exchange"
                f" them. No plan changes clients that log users in: assign a client scope with an Audience mapper for {who} to {name}.",
            )

    # Bound tokens

    def _bound(self) -> None:
        """Let the callers get bound tokens only of which every call is declared so. No plan switches that off."""
        wanted, able = self.wanted, self.before.model.version >= dpop.SINCE
        asking = sorted(wanted.bound | {call.caller for call in wanted.calls if call.dpop})
        if asking and not able:
            self._say(
                Severity.OPEN,
                f"{listed(asking)} calls with bound tokens (DPoP), and this server is Keycloak {self.before.version}: nothing is planned for that."
                f" {dpop.TOO_OLD}",
            )
        for client_id in sorted(self.usable):
            client = self.now.client(client_id) or {}
            if binds(client) and client_id in wanted.unbound:
                self._say(
                    Severity.OPEN,
                    f"Keycloak gives {named(client_id)} bound tokens only, and its access file declares calls with bearer tokens. It is not switched"
                    f" off. {dpop.bind_or_switch_off(client_id)}",
                )
            elif able and client_id in wanted.bound and not binds(client):
                self._bind(client_id)
            elif able and client_id in asking and not binds(client):
                self._say(
                    Severity.NOTE,
                    f"“Require DPoP bound tokens” of the client {named(client_id)} stays off: its access file also declares calls with bearer tokens,"
                    " and Keycloak would refuse their token requests. Whoever has its secret can still get bearer tokens.",
                )

    def _bind(self, client_id: str) -> None:
        who = named(client_id)
        if flows := self.rules.flows_of(client_id):
            self._say(
                Severity.NOTE,
                f"“Require DPoP bound tokens” of the client {who} stays off: it logs users in ({', '.join(flows)}), and their logins would need"
                " proofs too.",
            )
            return
        new = self.before.client(client_id) is None
        self._do(RequireBinding(client=client_id))
        if not new:
            self._say(
                Severity.NOTE,
                f"CHECK THIS: after this plan Keycloak refuses each token request of {who} without a proof. First start every process of {who} with"
                " dpop=True or KEYCLOAK_DPOP=true, also those on other hosts.",
            )

    def _bound_to_certificates(self) -> None:
        """Let Keycloak bind the tokens of the callers to their certificates if a called service needs that. No plan switches that off."""
        old = self.before.model.version < COMPARES_AUTHORITY
        for client_id in sorted(self.usable):
            who, client = named(client_id), self.now.client(client_id) or {}
            certified = client.get("clientAuthenticatorType") == CERTIFICATE
            if certified and old:
                self._say(Severity.NOTE, any_authority(client_id, self.before.version))
            needing, refusing = (each.get(client_id, ()) for each in (self.wanted.certified, self.wanted.uncertified))
            if binds_to_certificate(client) and refusing:
                self._say(
                    Severity.OPEN,
                    f"Keycloak binds the tokens of {who} to its client certificate, and no access file says that {listed(refusing)} accepts such tokens. It is"
                    f" not switched off. {accept_certificate_first(refusing, client_id)}",
                )
            elif needing and not binds_to_certificate(client):
                self._bind_to_certificate(client_id, needing, refusing, certified=certified)
            for note in certificate_notes(self.now.model, client_id) if self.wanted.clients.get(client_id) else ():
                self._say(Severity.NOTE, note)

    def _bind_to_certificate(
        self, client_id: str, needing: Collection[str], refusing: Collection[str], *, certified: bool
    ) -> None:
        who = named(client_id)
        problem = ""
        if not certified:
            problem = f"{who} does not log in by a certificate, so perhaps it has none"
        elif flows := self.rules.flows_of(client_id):
            problem = f"{who} logs users in ({', '.join(flows)}), and their logins would need a certificate too"
        elif refusing:
            problem = f"no access file says that {listed(refusing)}, which {who} also calls, accepts such tokens"
        if problem:
            self._say(
                Severity.OPEN,
                f"{listed(needing)} has routes that only a token bound to a client certificate opens, and Keycloak does not bind the tokens of {who}. It is"
                f" not switched on: {problem}. {bind_to_certificate_first(needing, client_id)}",
            )
            return
        new = self.before.client(client_id) is None
        self._do(RequireBinding(client=client_id, certificate=True))
        if not new:
            self._say(
                Severity.NOTE,
                f"CHECK THIS: after this plan each token of {who} is bound to its client certificate ({CERTIFICATE_BOUND}). Services whose access files are"
                " not given, and that do not check certificates, refuse it.",
            )

    def _there(self, *names: str) -> tuple[str, ...]:
        return tuple(name for name in names if self.now.scope(name) is not None)

    def _built_in_scopes(self) -> None:
        """Give each caller the scopes from which its token has ``sub`` and ``client_id``, and the roles that it needs."""
        with_roles = {each.caller for each in self.wanted.roles if each.by_hand or not self.rules.flows(each.caller)}
        for client_id, calls in self.wanted.clients.items():
            client = self.now.client(client_id)
            if not calls or client_id not in self.usable or client is None:
                continue
            account = [
                *["service_account"] * bool(client.get("serviceAccountsEnabled")),
                *["roles"] * (client_id in with_roles),
            ]
            for name in self._there("basic", *account):
                if name in client["defaultClientScopes"]:
                    continue
                if odd := self._built_in(name):
                    self._say(
                        Severity.OPEN,
                        f"{named(client_id)} needs the client scope {odd}: it is not assigned. If this is right, assign it by hand.",
                    )
                else:
                    self._do(AssignScope(client=client_id, scope=name))

    def _built_in(self, name: str) -> str:
        """Return the name of a scope of Keycloak's own with what it has more than that, as a part of a sentence; "" if it is as Keycloak makes it."""
        scope = self.before.scope(name)
        if scope is None:
            return ""
        if more := built_in_problem(scope):
            return f"{name}, which has mappers that Keycloak does not make there ({more})"
        return f"{name}, which has role mappings" if self.before.mapped("clientScope", name) else ""

    def _first(self) -> None:
        """Name the clients that were there and get their first audience or role: whoever made one may know its secret."""
        everybodys = {Role("", self.before.document["defaultRole"]["name"])}
        for client_id in sorted(self.usable):
            if self.before.client(client_id) is None or self.rules.had(client_id):
                continue
            held = self.before.granted(client_id) - everybodys
            gets = bool(of_scopes(self.now, client_id)) or bool(self.now.granted(client_id) - everybodys)
            if gets and not held:
                self._say(
                    Severity.NOTE,
                    f"CHECK THIS: the client {named(client_id)} was there, and gets its first audience or role. Whoever has its secret gets it too.",
                )

    def _rotated(self) -> None:
        """Say which services lose their secret: Keycloak's rotation of secrets takes every change of a client as the occasion."""
        if not self.before.rotating:
            return
        policy = f"The client policy {listed(self.before.rotating)}"
        if changed := sorted(
            {
                step.client
                for step in self.steps
                if isinstance(step, EnableServiceAccount | EnableExchange | RequireBinding | SetAuthentication)
            }
        ):
            self._say(
                Severity.NOTE,
                f"{policy} may give {listed(changed)} a new secret when it is changed: start these services with the secret on the page"
                " Credentials of their client.",
            )
        if new := [
            step.client
            for step in self.steps
            if isinstance(step, MakeClient) and step.caller and not step.authentication
        ]:
            self._say(
                Severity.NOTE,
                f"{policy} may let the new secret of {listed(new)} expire: note when, on the page Credentials of the client.",
            )

    # Scopes that routes require

    def _scope(self, each: WantedScope) -> None:
        who, what, rules = named(each.caller), named(each.scope), self.rules
        client = self.now.client(each.caller) or {}
        if each.scope in client["defaultClientScopes"] or (
            each.optional and each.scope in client["optionalClientScopes"]
        ):
            self._assign(
                each.caller, each.scope, optional=each.optional
            )  # nothing is given: it may say what is not as it should be
            return
        problem = ""
        if not each.optional and not each.by_hand and rules.flows(each.caller):
            problem = f"{who} logs users in, and each of their tokens would get the client scope {what}"
        elif self.before.scope(each.scope) is None and not each.by_hand and (beyond := rules.beyond(each.caller)):
            problem = f"{who} shall have the new client scope {what}, {_beyond(beyond)}"
        elif self.now.scope(each.scope) is None:
            self._do(MakeScope(scope=each.scope))
            self._new(f"client scope {what}")
        elif more := rules.more(each.scope, self.wanted.reach.get(each.caller, frozenset()), by_hand=each.by_hand):
            problem = f"{who} shall have the client scope {what}, which {more}"
        elif others := rules.strangers(each):
            problem = (
                f"{who} shall have the client scope {what}, which the realm has and others hold ({listed(others[:_MOST_NAMES])}), so it"
                " may be required somewhere else"
            )
        elif not each.by_hand and not self.before.holding(each.scope) and self.before.scope(each.scope) is not None:
            self._say(
                Severity.NOTE,
                f"CHECK THIS: the client scope {what} was there, and nobody held it. An app whose file is not given may require it.",
            )
        if problem:
            self._say(Severity.OPEN, f"{problem}: it is not assigned. {granting(each.caller, each.scope)} assigns it.")
        else:
            self._assign(each.caller, each.scope, optional=each.optional)

    def _new(self, what: str) -> None:
        self._say(Severity.NOTE, f"CHECK THIS: the {what} is new. An app whose file is not given may require it.")

    def _assign(self, client_id: str, scope: str, *, optional: bool) -> None:
        client = self.now.client(client_id) or {}
        if optional and scope in client["defaultClientScopes"]:
            self._say(
                Severity.NOTE,
                f"The client scope {named(scope)} is a Default one of {named(client_id)}, so all of its tokens have it. The code requests"
                " it: Optional is enough. It is not changed.",
            )
            return
        self._do(AssignScope(client=client_id, scope=scope, optional=optional))

    # Roles

    def _role(self, each: WantedRole) -> None:
        role, who = each.role, named(each.caller)
        if role.client and self.now.client(role.client) is None:
            self._say(
                Severity.OPEN,
                f"{who} shall have the role {named(role.name)} of {named(role.client)}, and the realm has no such client.",
            )
            return
        if role.client and (self.now.client(role.client) or {}).get("enabled") is False:
            return  # said of the client
        inside = self.now.inside(role)
        new = not self.before.has_role(role)
        if problem := forbidden_role(role, self.now.realm, inside):
            self._say(Severity.FORBIDDEN, f"{who} shall have a role that no plan grants: {problem}.")
            return
        if (
            not role.client
            and not each.by_hand
            and self.before.has_role(role)
            and role not in self._roles_of(each.caller)
        ):
            self._say(
                Severity.OPEN,
                f"{who} shall have the realm role {named(role.name)}, which the realm has: every app may require it, so it is not granted."
                f" {granting(each.caller, role)} grants it.",
            )
            return
        if not role.client and new and not each.by_hand and (beyond := self.rules.beyond(each.caller)):
            self._say(
                Severity.OPEN,
                f"{who} shall have the new realm role {named(role.name)}, {_beyond(beyond)}: it is not granted."
                f" {granting(each.caller, role)} grants it.",
            )
            return
        if inside and not each.by_hand:
            names = listed(f"{inner.client}:{inner.name}" if inner.client else inner.name for inner in inside)
            self._say(
                Severity.OPEN,
                f"{who} shall have the role {named(role.name)}, which contains other roles ({names}): it is not granted."
                f" {granting(each.caller, role)} grants it with them.",
            )
            return
        client = self.now.client(each.caller) or {}
        if self.rules.flows(each.caller) and "roles" not in client["defaultClientScopes"] and not each.by_hand:
            self._say(
                Severity.OPEN,
                f"{who} logs users in and has no client scope roles, so the tokens of its users hold no roles. With the role"
                f" {named(role.name)} they would: it is not granted. {granting(each.caller, role)} grants it.",
            )
            return
        self._do(MakeRole(owner=role.client, role=role.name))
        if new and not role.client:
            self._new(f"realm role {named(role.name)}")
        if not client.get("fullScopeAllowed", True) and role.client != each.caller:
            self._do(MapRole(client=each.caller, owner=role.client, role=role.name))
        self._do(GrantRole(client=each.caller, owner=role.client, role=role.name))

    # Audiences

    def _call(self, call: WantedCall) -> None:
        shares = self._shares(call)
        if not all(self._by_carrier(call, name, shares[name]) for name in call.carriers):
            return
        for audience in call.audiences:
            if not self._brought(call, audience):
                self._by_default(call.caller, audience)

    def _brought(self, call: WantedCall, audience: str) -> bool:
        """Return whether an Audience mapper brings the audience. That Audience Resolve brings it too, by a role, does not count."""
        client = self.now.client(call.caller) or {}
        if audience in of_scope(client):
            return True
        requested = {*call.carriers, *call.scopes}.intersection(client["optionalClientScopes"])
        return any(
            (scope := self.now.scope(name)) is not None
            and audience in of_scope(scope)
            and self.now.in_effect(call.caller, name)
            for name in (*client["defaultClientScopes"], *requested)
        )

    def _shares(self, call: WantedCall) -> dict[str, list[str]]:
        """Return which scope that the code requests shall bring which audience that none of them brings yet.

        A scope brings only what every call that requests it is for, if there is such an audience. The rest comes by default.
        """
        scopes = {name: self.now.scope(name) for name in call.carriers}
        brought = {audience for scope in scopes.values() if scope is not None for audience in of_scope(scope)}
        takers = [name for name, scope in scopes.items() if scope is None] or list(scopes)
        shares: dict[str, list[str]] = {name: [] for name in scopes}
        common = {name: self._common(name) for name in takers}
        for audience in call.audiences:
            fitting = [name for name in takers if not common[name] or audience in common[name]]
            if fitting and audience not in brought:
                shares[next((name for name in fitting if audience in name), fitting[0])].append(audience)
        return shares

    def _common(self, name: str) -> frozenset[str]:
        """Return the audiences of all calls that request a scope."""
        first, *others = (frozenset(call.audiences) for call in self.wanted.calls if name in call.carriers)
        return first.intersection(*others)

    def _by_carrier(self, call: WantedCall, name: str, share: list[str]) -> bool:
        """See to it that the caller can request the scope, and that it brings these audiences too. Return whether that is planned."""
        caller, scope, rules = call.caller, self.now.scope(name), self.rules
        client = self.now.client(caller) or {}
        held = name in client["defaultClientScopes"] or name in client["optionalClientScopes"]
        problem = ""
        if scope is not None and (share or not held):
            problem = rules.more(name, frozenset(call.audiences))
            if not problem and not held and of_scope(scope).isdisjoint(call.audiences):
                # An app whose file is not given may require it: it is not given away because somebody requests it.
                problem = "brings none of these audiences, and may be required somewhere"
            if not problem and not held and rules.elsewhere(caller, name):
                problem = "was there, and an app whose file is not given may require it"
        elif scope is None and not share:
            problem = "would bring none of these audiences, and may be required somewhere"
        if problem:
            result = (
                "extended. Request another one"
                if held
                else f"assigned. Request another one; or {granting(caller, name)} assigns it"
            )
            self._say(
                Severity.OPEN,
                f"{named(caller)} requests the client scope {named(name)} for {listed(call.audiences)}. It {problem}, so it is not {result}.",
            )
            return False
        if scope is None:
            custom = tuple(filter(self._is_custom, share))
            self._do(MakeScope(scope=name, audiences=tuple(share), custom=custom))
            self._say(
                Severity.NOTE,
                f"CHECK THIS: only {named(caller)} names the new client scope {named(name)}. An app whose file is not given may require it.",
            )
        elif share and not self._extend(name, share):
            return False
        self._assign(caller, name, optional=True)
        return True

    def _extend(self, name: str, audiences: Iterable[str]) -> bool:
        """Add audiences to a scope, if everybody who holds it may have them."""
        audiences = list(audiences)
        outside = self.now.holders.get(name, ())
        inside = sorted(
            holder
            for holder in self.now.holding(name)
            if not all(self.rules.may_have(holder, audience) for audience in audiences)
        )
        if holders := [*outside, *inside]:
            self._say(
                Severity.OPEN,
                f"The client scope {named(name)} does not bring the audience {listed(audiences)}, and is not extended:"
                f" {listed(holders[:_MOST_NAMES])} would get it too. Request another scope.",
            )
            return False
        for audience in audiences:
            self._do(AddAudience(scope=name, audience=audience, custom=self._is_custom(audience)))
        return True

    def _by_default(self, caller: str, audience: str) -> None:
        """Give the caller a default scope that brings the audience: one that is there, else a new one."""
        held = self.now.client(caller) or {}
        if not self.rules.may_have(caller, audience):
            self._say(
                Severity.OPEN,
                f"The client {named(caller)} logs users in, and each of their tokens would get the audience {named(audience)}: it is not assigned."
                f" {granting(caller, audience=audience)} assigns it.",
            )
            return
        usual, rules = scope_names(audience), self.rules
        fitting = [name for name in self.now.scopes if rules.fits(caller, audience, name)]
        if fitting:
            name = min(fitting, key=lambda one: (one not in held["optionalClientScopes"], one))
        else:
            name = next((one for one in usual if rules.free(one, audience)), "")
            if not name:
                self._say(
                    Severity.OPEN,
                    f"There is no name left for a client scope that brings the audience {named(audience)}: {listed(usual)} are taken.",
                )
                return
            for one in usual[: usual.index(name)]:
                self._say(
                    Severity.NOTE,
                    f"The client scope {one} is not used for the audience {named(audience)} of {named(caller)}: it {rules.why_taken(one, audience)}."
                    f" In its place {name} brings it.",
                )
            if others := [one for one in self.before.scopes if rules.fits_but_for_its_name(caller, audience, one)]:
                self._say(
                    Severity.NOTE,
                    f"The client scope {listed(others[:1])} brings the audience {named(audience)} too. It is not given to {named(caller)}, because"
                    " an app whose file is not given may require it.",
                )
            if self.now.scope(name) is None:
                custom = (audience,) if self._is_custom(audience) else ()
                self._do(MakeScope(scope=name, audiences=(audience,), custom=custom))
            else:
                self._do(AddAudience(scope=name, audience=audience, custom=self._is_custom(audience)))
        self._do(AssignScope(client=caller, scope=name))

    def _is_custom(self, audience: str) -> bool:
        return self.now.client(audience) is None


class _Proof(TypedDict, total=False):
    provider: str
    subject: str
    subject_dn: str
    issuer_dn: str


def _proof(how: ClientAuthentication | None) -> _Proof:
    """Return how a client proves itself, as a step says it."""
    if how is None:
        return {}
    if isinstance(how, ByFederation):
        return {"provider": how.provider.alias, "subject": how.subject}
    return {"subject_dn": how.subject_dn, "issuer_dn": how.issuer_dn}


def _beyond(audiences: Iterable[str]) -> str:
    return f"and it has the audience {listed(audiences)}, to which an app answers whose file is not given and that may require it"
