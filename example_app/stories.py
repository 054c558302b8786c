"""The five stories, line by line: who calls whom, with which token, and what the answer must be.

The same lines run on every server that is given to them. Each function yields a line after it was played; whoever reads them
compares what was seen with what the story says.
"""

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from example_app import cluster
from example_app.realm import Realm, claims_of
from example_app.stage import Answer, Stage, free_port
from s2s_fastapi.proof.key import ProofKey

__all__ = ["LINES", "STORIES", "Line", "abc", "corp", "techstore", "vault", "workshop"]

_INVALID = 'error="invalid_token"'
_INSUFFICIENT = 'error="insufficient_scope"'
_DPOP = "DPoP "
_INVALID_PROOF = 'error="invalid_dpop_proof"'
_NOTE = {"to": "customer", "text": "hello"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a story: what happens, what the answer must be, and what it was."""

    what: str
    token: str
    """The token in short: ``azp``, ``aud`` and ``scope``."""
    status: int
    reason: str
    seen: Answer
    challenge: str = ""
    """What the challenge must hold; empty where there must be none."""
    log: tuple[str, ...] = ()
    """What the operator's log must say."""
    body: str = ""
    """What the answer must hold."""

    @property
    def answer(self) -> str:
        """The status as a person reads it; below 100 it is the exit code of a process."""
        return str(self.seen.status) if self.seen.status >= 100 else f"exit {self.seen.status}"  # noqa: PLR2004

    @property
    def cure(self) -> str:
        """The operator's sentence: the cure in the log line, or the line that says what was expected."""
        if found := re.search(r"cure=(['\"])(.*?)\1(?= \w+=|$)", self.seen.log):
            return found[2]
        return (
            next((text.strip() for text in self.seen.log.splitlines() if self.log[0] in text), "") if self.log else ""
        )

    @property
    def accepted_attack(self) -> bool:
        """Whether what must be refused went through: the worst that a line can show."""
        must_be_refused = self.reason != "allowed" and (bool(self.reason) or not _went_well(self.status))
        return must_be_refused and _went_well(self.seen.status) and self.seen.reason in ("", "allowed")

    @property
    def deviations(self) -> tuple[str, ...]:
        """What differs from the story, nothing where it went as told."""
        seen = self.seen
        found = [
            (seen.status != self.status, f"status {seen.status}, expected {self.status}: {seen.body} {seen.log}"),
            (seen.reason != self.reason, f"reason {seen.reason or 'none'}, expected {self.reason or 'none'}"),
            (bool(seen.challenge) != bool(self.challenge), f"challenge {seen.challenge or 'none'}"),
            (self.challenge not in seen.challenge, f"challenge {seen.challenge!r}, expected {self.challenge!r} in it"),
            (self.body not in seen.body, f"answer {seen.body!r}, expected {self.body!r} in it"),
            *((words not in seen.log, f"the log does not say {words!r}: {seen.log}") for words in self.log),
        ]
        return tuple(text for wrong, text in found if wrong)


def _went_well(status: int) -> bool:
    return status == 0 or 200 <= status < 300  # noqa: PLR2004 - a process that ended without an error, and HTTP's successes


def told(token: str | None) -> str:
    """Return a token in short."""
    if token is None:
        return "none"
    claims = claims_of(token)
    audience = claims.get("aud", [])
    names = sorted([audience] if isinstance(audience, str) else audience)
    who = "user of " if "sid" in claims else "bound token of " if "cnf" in claims else ""
    return f"{who}{claims.get('azp')}, aud [{', '.join(names)}], scope [{claims.get('scope', '')}]"


def corp(realm: Realm) -> Iterator[Line]:
    """Story 1: chat-app-service opens a ticket at crm-api-gateway."""
    gateway = free_port()
    url = {"CRM_URL": f"http://127.0.0.1:{gateway}"}
    steps = (
        "(B) a client crm-api-gateway",
        "(C) a client scope",
        "(D) that scope assigned",
    )
    with Stage() as stage:
        stage.add("crm_gateway", realm.environment("crm-api-gateway"), port=gateway)
        stage.add("chat_app", {**realm.environment("chat-app-service"), **url})
        stage.wait()

        def ask(
            what: str, token: str | None, status: int, reason: str, method: str = "POST", **expected: object
        ) -> Line:
            ticket = {"subject": "help"} if method == "POST" else None
            seen = stage.ask("crm_gateway", method, "/tickets", token, json=ticket)
            return Line(what, told(token), status, reason, seen, **expected)  # type: ignore[arg-type]

        chat = realm.service_token("chat-app-service")
        unassigned = realm.service_token("chat-app-unassigned")
        billing = realm.service_token("billing")

        yield ask(
            "before the scope is assigned, a plain client",
            unassigned,
            401,
            "wrong_audience",
            challenge=_INVALID,
            log=("token of chat-app-unassigned has aud [account], expected crm-api-gateway", *steps),
        )
        stage["crm_gateway"].forget()
        without = {**realm.environment("chat-app-unassigned"), **url}
        done = stage.run("example_app.open_ticket", without)
        yield Line(
            "before the scope is assigned, our own client: AudienceNotGranted, nothing is sent",
            told(unassigned),
            1,
            "",
            Answer(done.returncode, "", done.stdout, stage["crm_gateway"].decision(seconds=0.5)[0], done.stderr),
            log=(
                "AudienceNotGranted: ",
                "token of chat-app-unassigned has aud [account], expected crm-api-gateway",
                *steps,
            ),
        )
        stopped = stage.add("unassigned", without, app="example_app.chat_app:app")
        yield Line(
            "before the scope is assigned, a service with warm-up: it does not start",
            told(unassigned),
            3,
            "",
            Answer(stopped.join(), "", "", log=stopped.log),
            log=("token of chat-app-unassigned has aud [account], expected crm-api-gateway", *steps),
        )
        yield ask("the chat app, plain client", chat, 201, "allowed")
        seen = stage.ask("chat_app", "POST", "/escalate", log_of="crm_gateway")
        yield Line("the chat app, our own caller", told(chat), 201, "allowed", seen)
        yield ask("billing may list", billing, 200, "allowed", "GET")
        yield ask(
            "billing may not open",
            billing,
            403,
            "caller_not_allowed",
            challenge=_INSUFFICIENT,
            log=("billing is not allowed here (allowed: chat-app-service)",),
        )
        yield ask("no token", None, 401, "no_credentials", challenge="Bearer realm=")


def techstore(realm: Realm) -> Iterator[Line]:
    """Story 2: shop-api tells notification-service, from wherever it runs."""
    port = free_port()
    shop_environment = {**realm.environment("shop-api"), "NOTIFICATIONS_URL": f"http://127.0.0.1:{port}"}
    receiver = realm.environment("notification-service")
    with Stage() as stage:
        stage.add("notification_service", receiver, port=port)
        stage.add("notification_service_by_scope", receiver)
        stage.add("shop_api", shop_environment)
        stage.wait()

        def ask(
            what: str,
            token: str | None,
            status: int,
            reason: str,
            path: str = "/notifications",
            service: str = "notification_service",
            **expected: object,
        ) -> Line:
            seen = stage.ask(service, "POST", path, token, json=_NOTE)
            return Line(what, told(token), status, reason, seen, **expected)  # type: ignore[arg-type]

        def by_scope(
            what: str, token: str, status: int, reason: str, path: str = "/notifications", **expected: object
        ) -> Line:
            return ask(what, token, status, reason, path, "notification_service_by_scope", **expected)

        def through(what: str, path: str, status: int) -> Line:
            seen = stage.ask("shop_api", "POST", path, log_of="notification_service")
            return Line(what, told(shop), status, "allowed", seen)

        shop = realm.service_token("shop-api")
        inventory = realm.service_token("inventory-service")
        customer = realm.user_token("customer", via="shop-ui")
        through_shop = realm.user_token("customer", via="shop-api")

        yield ask("shop-api", shop, 202, "allowed")
        yield ask(
            "another service",
            inventory,
            403,
            "caller_not_allowed",
            challenge=_INSUFFICIENT,
            log=("inventory-service is not allowed here (allowed: shop-api)",),
        )
        yield ask(
            "a user of the front end",
            customer,
            403,
            "not_a_service",
            challenge=_INSUFFICIENT,
            log=("token of shop-ui belongs to a user, expected a service",),
        )
        yield ask(
            "a user, through shop-api itself",
            through_shop,
            403,
            "not_a_service",
            challenge=_INSUFFICIENT,
            log=("token of shop-api belongs to a user, expected a service",),
        )
        yield ask("no token", None, 401, "no_credentials", challenge="Bearer realm=")
        forged = shop[:-10] + ("A" * 10 if not shop.endswith("A" * 10) else "B" * 10)
        seen = stage.ask("notification_service", "POST", "/notifications", forged, json=_NOTE)
        yield Line(
            "a forged token", "shop-api's, another signature", 401, "invalid_signature", seen, challenge=_INVALID
        )

        yield through("from a request", "/checkout", 200)
        yield through("from a request, in a plain function", "/checkout/sync", 200)
        yield through("from an incoming webhook, which is public", "/hooks/payment", 200)
        yield through("from a background task", "/checkout/later", 202)
        for what, module, printed in (
            ("from a cron job", "example_app.nightly_report", "202"),
            ("from a queue consumer", "example_app.order_worker", "202\n202\n202"),
        ):
            stage["notification_service"].forget()
            done = stage.run(module, shop_environment)
            status = 202 if done.stdout.strip() == printed and done.returncode == 0 else 0
            reason, log = stage["notification_service"].decision()
            yield Line(what, told(shop), 202, "allowed", Answer(status, "", done.stdout + done.stderr, reason, log))

        yield by_scope("by scope: shop-api has it", shop, 202, "allowed")
        yield by_scope(
            "by scope: another service does not have it",
            inventory,
            403,
            "scope_missing",
            challenge='error="insufficient_scope", scope="notifications:send"',
            log=("token of inventory-service lacks scope notifications:send",),
        )
        yield by_scope(
            "by scope: a user has it, but is not a service", customer, 403, "not_a_service", challenge=_INSUFFICIENT
        )
        yield by_scope("by role: shop-api has it", shop, 202, "allowed", "/notifications/urgent")
        yield by_scope(
            "by role: another service does not have it",
            inventory,
            403,
            "role_missing",
            "/notifications/urgent",
            challenge=_INSUFFICIENT,
            log=("token of inventory-service lacks role of client notification-service: notifications:send",),
        )
        yield by_scope(
            "by role: a user has it, but is not a service",
            customer,
            403,
            "not_a_service",
            "/notifications/urgent",
            challenge=_INSUFFICIENT,
        )


def abc(realm: Realm) -> Iterator[Line]:
    """Story 3: Alice, Bob and Charles do not trust each other."""
    ports = {name: free_port() for name in ("bob", "charles", "gullible")}
    urls = {f"{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    custom = "https://bob.abc.example/api"
    with Stage() as stage:
        stage.add("bob", {**realm.environment("bob"), **urls}, port=ports["bob"])
        stage.add("charles", realm.environment("charles"), port=ports["charles"])
        stage.add("gullible", {**realm.environment("charles")}, port=ports["gullible"])
        at_url = {**realm.environment("bob"), **urls, "KEYCLOAK_AUDIENCE": custom}
        stage.add("bob_at_url", at_url, app="example_app.bob:app")
        stage.add("alice", {**realm.environment("alice"), **urls})
        stage.wait()

        def ask(
            what: str, to: str, token: str, status: int, reason: str, path: str = "/messages", **expected: object
        ) -> Line:
            seen = stage.ask(to, "POST", path, token)
            return Line(f"{what}: {to}", told(token), status, reason, seen, **expected)  # type: ignore[arg-type]

        def refused(what: str, to: str, token: str, aud: str = "no aud") -> Line:
            log = (f"has {aud}, expected {to}",)
            return ask(what, to, token, 401, "wrong_audience", challenge=_INVALID, log=log)

        def both(what: str, scope: str) -> Iterator[Line]:
            token = realm.service_token("alice", scope)
            for to in ("bob", "charles"):
                yield ask(what, to, token, 200, "allowed")

        def neither(what: str, client: str, scope: str | None) -> Iterator[Line]:
            token = realm.service_token(client, scope)
            for to in ("bob", "charles"):
                yield refused(what, to, token)

        user = realm.user_token("dora", via="abc-ui", scope="untrusted-audience")
        yield ask("a user's token for Bob", "bob", user, 200, "allowed")
        yield refused("the same token, forwarded by Bob", "charles", user, "aud [bob]")

        yield from neither("Alice without a scope", "alice", None)
        for_bob = realm.service_token("alice", "untrusted-audience")
        yield ask("Alice asks for Bob", "bob", for_bob, 200, "allowed")
        yield refused("Bob replays it", "charles", for_bob, "aud [bob]")
        yield ask("Bob replays it at a service that does not check aud", "gullible", for_bob, 200, "allowed")

        yield from both("two mappers in one scope", "both-audiences")
        yield from both("two scopes requested together", "untrusted-audience charles-audience")
        yield from both("two role-scope mappings in one scope", "auto-add-both-audiences")
        for_both = realm.service_token("alice", "both-audiences")
        yield ask(
            "with only=True, a token for both",
            "charles",
            for_both,
            401,
            "audience_not_only",
            "/secrets",
            challenge=_INVALID,
            log=("token of alice is also for bob",),
        )
        for_charles = realm.service_token("alice", "charles-audience")
        yield ask("with only=True, a token for one", "charles", for_charles, 200, "allowed", "/secrets")
        yield ask("a custom audience", "bob_at_url", realm.service_token("alice", "bob-url-audience"), 200, "allowed")
        seen = stage.ask("bob_at_url", "POST", "/messages", for_bob)
        log = (f"has aud [bob], expected {custom}",)
        yield Line(
            "the client id instead of the expected URL: bob_at_url",
            told(for_bob),
            401,
            "wrong_audience",
            seen,
            _INVALID,
            log,
        )

        resolved = realm.service_token("alice", "auto-add-audience")
        yield ask("Audience Resolve", "bob", resolved, 200, "allowed")
        yield refused("Audience Resolve", "charles", resolved, "aud [bob]")
        yield from both("Audience Resolve, both scopes", "auto-add-audience another-scope-to-include-charles")
        yield from neither("the account lacks the role", "alice-without-role", "auto-add-audience")
        yield from neither("the scope has no role mapping", "alice", "auto-add-without-role")
        yield from neither("the built-in scope roles is not assigned", "alice-without-roles-scope", "auto-add-audience")

        for to, token in (("bob", for_bob), ("charles", for_charles)):
            seen = stage.ask("alice", "POST", f"/messages/{to}", log_of=to)
            yield Line(f"Alice's own client chooses per call: {to}", told(token), 200, "allowed", seen)
        # After both calls: were tokens mixed, one of the two would now be refused.
        seen = stage.ask("alice", "POST", "/messages/bob", log_of="bob")
        yield Line("and again: bob", told(for_bob), 200, "allowed", seen)
        stage["charles"].forget()
        response = stage["alice"].ask("POST", "/replays")
        reason, rest = stage["charles"].decision()
        status = 200 if response.text == "[401,200]" else response.status_code * 1000
        seen = Answer(status, "", response.text, reason, rest)
        yield Line(
            "Bob replays what Alice's client sent: [Charles 401, Gullible 200]",
            told(for_bob),
            200,
            "wrong_audience",
            seen,
        )


def workshop(realm: Realm) -> Iterator[Line]:
    """Story 4: an agent, its tools and its users."""
    ports = {name: free_port() for name in ("tool_server", "calendar_api")}
    urls = {
        "TOOLS_URL": f"http://127.0.0.1:{ports['tool_server']}",
        "CALENDAR_URL": f"http://127.0.0.1:{ports['calendar_api']}",
    }
    # A tool server that calls nobody is no client of the realm: its audience is its URL.
    receiver = {
        name: value for name, value in realm.environment("assistant").items() if not name.startswith("KEYCLOAK_CLIENT_")
    }
    with Stage() as stage:
        stage.add("tool_server", receiver, port=ports["tool_server"])
        stage.add("tool_server_fastmcp", receiver)
        stage.add("calendar_api", realm.environment("calendar-api"), port=ports["calendar_api"])
        stage.add("assistant", {**realm.environment("assistant"), **urls})
        stage.wait()

        ann = realm.user_token("ann", via="assistant-ui")

        def ask(what: str, path: str, status: int, reason: str, log_of: str, **expected: object) -> Line:
            seen = stage.ask("assistant", "GET", path, ann, log_of=log_of)
            return Line(what, told(ann), status, reason, seen, **expected)  # type: ignore[arg-type]

        for server, client in (("tool_server", "official"), ("tool_server_fastmcp", "fastmcp")):
            yield from _tools(realm, stage, server, client, ann)
        yield ask(
            "the assistant uses a tool, as itself",
            "/note",
            200,
            "allowed",
            "tool_server",
            body="published: a note of ann",
        )
        on_behalf = "the assistant reads Ann's calendar, on behalf of Ann"
        if realm.exchanges:
            both = '{"of":"ann","through":"assistant","asked_by":"ann"}'
            yield ask(on_behalf, "/agenda", 200, "allowed", "calendar_api", body=both)
        else:
            yield ask(on_behalf, "/agenda", 503, "allowed", "assistant")
        yield ask(
            "the assistant tries it as itself",
            "/agenda/as-myself",
            200,
            "not_a_user",
            "calendar_api",
            log=("token of assistant belongs to a service, expected a user",),
            body='"status":403',
        )
        yield Line(
            "Ann's own token at the calendar",
            told(ann),
            401,
            "wrong_audience",
            stage.ask("calendar_api", "GET", "/appointments", ann),
            _INVALID,
            ("expected calendar-api",),
        )


def _tools(realm: Realm, stage: Stage, server: str, client: str, ann: str) -> Iterator[Line]:
    """Use the tools of one server, by the client of its SDK."""
    assistant = realm.service_token("assistant", "tools-audience")
    indexer, reporter = map(realm.service_token, ("indexer", "reporter"))
    ben = realm.user_token("ben", via="assistant-ui")
    path = "/.well-known/oauth-protected-resource/mcp"
    metadata = f'resource_metadata="https://tools.workshop.example{path}"'

    def use(who: str, token: str, tool: str, reason: str, body: str, *log: str) -> Line:
        arguments = {"text": "a note"} if tool == "publish" else {}
        seen = stage.use_tool(server, client, token, tool, refused=reason != "allowed", **arguments)
        return Line(f"{who}: {server}", told(token), 200, reason, seen, log=log, body=body)

    found = stage[server].ask("GET", path)
    yield Line(
        f"without a token, only the document that names the server and the realm: {server}",
        told(None),
        200,
        "",
        Answer(found.status_code, "", found.text),
        body=realm.issuer,
    )
    seen = stage.ask(server, "POST", "/mcp", json={})
    yield Line(f"no token: {server}", told(None), 401, "no_credentials", seen, metadata)
    yield use("the assistant publishes", assistant, "publish", "allowed", "['publish', 'whoami'] published: a note")
    yield use("a user, who sees one tool", ann, "whoami", "allowed", "['whoami'] user ann")
    yield use(
        "another service may not publish, and does not see the tool",
        indexer,
        "publish",
        "caller_not_allowed",
        "['whoami'] ",
        "indexer is not allowed here (allowed: assistant)",
    )
    seen = stage.ask(server, "POST", "/mcp", reporter, json={})
    wrong = "has aud [https://other.workshop.example/mcp], expected https://tools.workshop.example/mcp"
    yield Line(
        f"a token for another tool server: {server}",
        told(reporter),
        401,
        "wrong_audience",
        seen,
        metadata,
        (wrong,),
    )
    seen = stage.use_session(server, ann, ann, "whoami")
    yield Line(f"Ann in her session: {server}", told(ann), 200, "allowed", seen, body="user ann")
    seen = stage.use_session(server, ann, ben, "whoami")
    yield Line(f"Ben in Ann's session: {server}", told(ben), 404, "allowed", seen)


def vault(realm: Realm) -> Iterator[Line]:
    """Story 5: Bob keeps Alice's token, and tries it at a service that trusts them both."""
    ports = {name: free_port() for name in ("bob", "charles")}
    urls = {f"{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    receivers = {name: {**realm.environment(name), **urls} for name in ports}
    with Stage() as stage:
        stage.add("bound_bob", receivers["bob"], port=ports["bob"])
        stage.add("bound_charles", receivers["charles"], port=ports["charles"])
        stage.add("unbound_charles", receivers["charles"])
        stage.add("bound_alice", {**realm.environment("alice"), **urls})
        stage.wait()

        dora = realm.service_token("dora")
        if realm.binds:
            yield from _bound(stage, urls["CHARLES_URL"])
            yield from _without_secret(stage, realm, urls)
        else:
            asked = stage["bound_alice"].ask("POST", "/letters/bob")
            reached = stage["bound_bob"].decision(seconds=0.5)[0]
            seen = Answer(asked.status_code, "", asked.text, reached, stage["bound_alice"].log)
            what = "Alice writes, but Keycloak 26.0 binds no token: nothing is sent"
            yield Line(what, told(None), 503, "", seen, log=("Keycloak ignored the proof",))

        def ask(what: str, to: str, token: str | None, status: int, reason: str, **expected: object) -> Line:
            seen = stage.ask(to, "POST", "/letters", token)
            return Line(f"{what}: {to}", told(token), status, reason, seen, **expected)  # type: ignore[arg-type]

        yield ask("Dora writes with a bearer token", "bound_bob", dora, 200, "allowed")
        yield ask("Bob sends Dora's token on", "unbound_charles", dora, 200, "allowed")
        yield ask(
            "and where bound tokens are required", "bound_charles", dora, 401, "bearer_not_accepted", challenge=_DPOP
        )
        yield ask("no token", "bound_charles", None, 401, "no_credentials", challenge="DPoP realm=")


def _bound(stage: Stage, charles_url: str) -> Iterator[Line]:
    """Let Alice write with her key, and Bob try what he can without it."""

    def write(what: str, to: str) -> Line:
        seen = stage.ask("bound_alice", "POST", f"/letters/{to}", log_of=f"bound_{to}")
        return Line(what, told(token), 200, "allowed", seen, body='"binding":"dpop"')

    def stolen() -> dict[str, str]:
        """Return the credentials of a letter that Bob just got."""
        stage["bound_alice"].ask("POST", "/letters/bob")
        return stage.kept("bound_bob")

    def steal(what: str, to: str, reason: str, headers: dict[str, str], challenge: str, *log: str) -> Line:
        seen = stage.ask(to, "POST", "/letters", headers=headers)
        return Line(f"{what}: {to}", told(token), 401, reason, seen, challenge, log)

    copy = stolen()
    authorization = copy["authorization"]
    token = authorization.partition(" ")[2]
    yield write("Alice writes to Bob", "bob")
    yield write("Alice writes to Charles, with the same token", "charles")

    copy = stolen()
    yield steal("a copy of her letter", "bound_bob", "proof_replayed", copy, _INVALID_PROOF)
    other = {**copy, "X-Worker": "2"}
    yield steal("the same copy, at Bob's other worker", "bound_bob", "proof_replayed", other, _INVALID_PROOF)

    bearer = {"Authorization": f"Bearer {token}"}
    yield steal("Bob sends her token on as a bearer token", "bound_charles", "sender_constrained", bearer, _INVALID)
    yield steal("and at an app without dpop=", "unbound_charles", "sender_constrained", bearer, _INVALID)
    alone = {"Authorization": authorization}
    yield steal("Bob sends her token without a proof", "bound_charles", "proof_missing", alone, _INVALID_PROOF)
    yield steal(
        "with the proof that she made for Bob", "bound_charles", "invalid_proof", stolen(), _INVALID_PROOF, "htu"
    )
    by_bob = ProofKey().proof("POST", f"{charles_url}/letters", now=time.time(), token=token)
    own = {**alone, "DPoP": by_bob}
    yield steal("with a proof by a key of Bob's", "bound_charles", "invalid_proof", own, _INVALID_PROOF, "key")
    yield write("Alice writes to Charles again", "charles")


def _without_secret(stage: Stage, realm: Realm, urls: Mapping[str, str]) -> Iterator[Line]:
    """Let Emil write, whose environment has no secret: a file has the token that his cluster gives him."""
    with tempfile.TemporaryDirectory(prefix="emil-") as folder:
        file = cluster.write(folder, "emil", realm.issuer)
        stage.add("emil", {**realm.without_secret("emil", file), **urls}, app="example_app.bound_alice:app")
        stage.wait()
        seen = stage.ask("emil", "POST", "/letters/charles", log_of="bound_charles")
        token = "bound token of emil, aud [bob, charles], scope [friends-audience]"
        yield Line("Emil, who has no secret, writes to Charles", token, 200, "allowed", seen, body='"from":"emil"')
    stolen = cluster.service_account_token("bob", realm.issuer)
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    asked = realm.ask(
        grant_type="client_credentials", client_id="emil", client_assertion_type=kind, client_assertion=stolen
    )
    seen = Answer(asked.status_code, "", asked.text)
    yield Line("Bob asks for Emil's token with his own pod's token", "none", 401, "", seen, body="invalid_client")


STORIES = {"corp": corp, "techstore": techstore, "abc": abc, "workshop": workshop, "vault": vault}
LINES = {"corp": 8, "techstore": 18, "abc": 31, "workshop": 20, "vault": 16}
"""How many lines each story has on a server that exchanges and binds tokens."""
