"""The client of the Admin API, and what is read with it: rights, pages, bounds, and no secret."""

import json
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from s2s_fastapi import require_caller
from s2s_fastapi.caller.client_key import KeyType, new_private_key
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.admin import AdminApi, AdminError, AdminForbidden, AdminTarget
from s2s_fastapi.operations.snapshot import Question, read_snapshot
from s2s_fastapi.operations.steps import AddAudience
from s2s_fastapi.realm.builtins import CLIENT_ID_MAPPERS
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.admin_rest import VIEW, FakeKeycloak, target_of
from tests.kit.declaring import caller, receiver
from tests.operations.planning import plan_for

APPS = (receiver("crm", require_caller("chat")), caller("chat", "crm"))
PLACE = {"KEYCLOAK_URL": "https://sso.example", "KEYCLOAK_REALM": "corp"}


@pytest.mark.parametrize("right", ["view-clients", "view-users", "view-realm"])
def test_a_planner_without_a_right_is_told_which_one(right: str) -> None:
    server = FakeKeycloak(rights=VIEW - {right})
    server.add_client(clientId="chat", serviceAccountsEnabled=True)
    with (
        server.api() as api,
        pytest.raises(
            AdminError,
            match=f"planner has no right to .* the role {right} of the client realm-management in the realm corp",
        ),
    ):
        plan_for(api, *APPS)


def test_an_empty_list_of_clients_is_a_missing_right_and_not_an_empty_realm() -> None:
    server = FakeKeycloak(rights=VIEW - {"view-clients"})
    with server.api() as api, pytest.raises(AdminError, match="see all clients: Keycloak answers with an empty list"):
        read_snapshot(api, Question(clients=frozenset()))


def test_few_settings_of_the_realm_are_a_missing_right_and_not_its_settings() -> None:
    server = FakeKeycloak(rights=VIEW - {"view-realm"})
    with server.api() as api, pytest.raises(AdminError, match="no right to read the settings of the realm"):
        read_snapshot(api, Question(clients=frozenset()))


def test_in_another_realm_the_right_is_a_role_of_the_realms_client_there() -> None:
    target = AdminTarget.of(
        {
            **PLACE,
            "KEYCLOAK_ADMIN_REALM": "master",
            "KEYCLOAK_ADMIN_CLIENT_ID": "root",
            "KEYCLOAK_ADMIN_CLIENT_SECRET": "s",
        }
    )
    with (
        AdminApi(target, token=lambda: "t", transport=httpx.MockTransport(lambda request: httpx.Response(403))) as api,
        pytest.raises(AdminForbidden, match="the role view-realm of the client corp-realm in the realm master"),
    ):
        api.get(needs="view-realm")


def test_a_realm_that_does_not_exist_is_a_sentence_and_is_not_made() -> None:
    server = FakeKeycloak(realm="other")
    with (
        AdminApi(target_of("corp"), token=lambda: "t", transport=httpx.MockTransport(server.answer)) as api,
        pytest.raises(AdminError, match=r"There is no realm corp at http://keycloak\.test"),
    ):
        plan_for(api, *APPS)
    assert server.writes() == []


def test_a_realm_with_many_clients_is_read_in_pages_of_which_one_is_in_memory() -> None:
    clients, large = 2_000, "x" * 8_000
    largest = [0]

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/clients") or "clientId" in request.url.params:
            return server.answer(request)
        first = int(request.url.params["first"])
        page = [
            {
                "id": f"id-{number}",
                "clientId": f"client-{number:04}",
                "description": large,
                "defaultClientScopes": [f"scope-{number % 500}", "basic"],
            }
            for number in range(first, min(first + int(request.url.params["max"]), clients))
        ]
        largest[0] = max(largest[0], len(page))
        return httpx.Response(
            200, content=iter([json.dumps(page).encode()])
        )  # as from a socket: the answer does not keep it

    server = FakeKeycloak()
    for number in range(500):
        server.add_scope(f"scope-{number}", "crm" if number == 7 else "other")
    shown: list[str] = []
    with AdminApi(target_of(), token=lambda: "t", transport=httpx.MockTransport(answer)) as api:
        tracemalloc.start()
        snapshot = read_snapshot(
            api, Question(clients=frozenset({"client-0007"}), audiences=frozenset({"crm"})), progress=shown.append
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert largest == [100]
    assert peak < clients * len(large) / 2  # all pages together are 16 MB
    assert [client["clientId"] for client in snapshot.document["clients"]] == ["client-0007", "account"]
    assert len(snapshot.holders["scope-7"]) == 3
    assert len([name for name in snapshot.holders["basic"] if name.startswith("client-")]) == 1_999
    assert shown[0] == "100 clients"
    assert shown[19] == "2000 clients"
    assert shown[-1] == "service 1 of 1"


def test_a_page_with_fewer_entries_than_asked_does_not_end_a_list() -> None:
    server = FakeKeycloak(largest_page=7)
    for number in range(50):
        server.add_client(clientId=f"client-{number:02}", defaultClientScopes=["basic"])
    with server.api() as api:
        snapshot = read_snapshot(api, Question(clients=frozenset()))

    assert len({name for name in snapshot.holders["basic"] if name.startswith("client-")}) == 50


def test_a_list_that_has_an_entry_twice_is_an_error_and_has_an_end() -> None:
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json=[{"id": "1"}]))
    with AdminApi(target_of(), token=lambda: "t", transport=answer) as api, pytest.raises(AdminError, match="twice"):
        list(api.pages("clients", needs="view-clients"))


def test_a_role_that_contains_one_of_a_client_that_is_not_listed_is_an_error_and_no_realm_role() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    hidden = server.add_client(clientId="hidden")
    server.inside[server.add_role("crm", "write")] = {server.add_role("hidden", "any")}
    del server.clients[hidden]
    with server.api() as api, pytest.raises(AdminError, match="a role of a client that Keycloak does not list"):
        read_snapshot(api, Question(clients=frozenset(), roles=frozenset({Role("crm", "write")})))


def _held_by_keycloaks_own(server: FakeKeycloak) -> None:
    server.client("account-console")["optionalClientScopes"].append("crm-call")


@pytest.mark.parametrize(
    ("hold", "holder"),
    [
        (_held_by_keycloaks_own, "account-console"),
        (lambda server: server.of_new_clients["default"].append("crm-call"), '"every new client"'),
        (lambda server: server.of_new_clients["optional"].append("crm-call"), '"every new client"'),
    ],
    ids=["a client of Keycloak", "default of new clients", "optional of new clients"],
)
def test_a_scope_that_clients_of_keycloak_or_new_ones_hold_gets_no_mapper(
    hold: Callable[[FakeKeycloak], object], holder: str
) -> None:
    server = FakeKeycloak()
    server.add_scope("crm-call")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, optionalClientScopes=["crm-call"])
    with server.api() as api:
        apps = (APPS[0], caller("chat", "crm", scope="crm-call"))
        assert AddAudience(scope="crm-call", audience="crm") in plan_for(api, *apps).steps
        hold(server)
        plan = plan_for(api, *apps)

    assert not [step for step in plan.steps if isinstance(step, AddAudience)]
    assert f"is not extended: {holder} would get it too" in "\n".join(finding.text for finding in plan.findings)


def test_no_secret_gets_into_what_is_kept_whatever_its_field_is_called() -> None:
    server = FakeKeycloak()
    hidden = {
        "secret": "s3cr3t-1",
        "registrationAccessToken": "s3cr3t-2",
        "attributes": {"client.secret.rotated": "s3cr3t-3", "new.secret": "s3cr3t-4"},
    }
    mapper = {"name": "m", "protocolMapper": "oidc-vendor-mapper", "config": {"password": "s3cr3t-5"}}
    server.add_client(clientId="chat", serviceAccountsEnabled=True, protocolMappers=[mapper], **hidden)
    server.add_client(clientId="other", **hidden)
    with server.api() as api:
        plan = plan_for(api, *APPS)
        snapshot = read_snapshot(api, plan.question)

    kept = json.dumps([snapshot.document, plan.as_json()]) + repr(snapshot) + repr(plan)
    assert "s3cr3t" not in kept
    assert "smtp-secret" not in kept


def test_the_hash_follows_what_the_prediction_reads_and_no_secret() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="chat", serviceAccountsEnabled=True, defaultClientScopes=["roles", "basic"])
    question = Question(clients=frozenset({"chat"}), roles=frozenset({Role("chat", "x")}))

    def now() -> str:
        with server.api() as api:
            return read_snapshot(api, question).hash

    before = now()
    server.client("chat")["secret"] = "another"
    server.client("chat")["description"] = "another"
    server.client("chat")["defaultClientScopes"].reverse()
    assert now() == before
    for change in _CHANGES:
        change(server)
        assert now() != before, change
        before = now()


def test_what_the_oldest_keycloak_adds_at_the_first_log_in_of_a_service_is_no_change() -> None:
    for old in (True, False):
        server, question = FakeKeycloak(old=old), Question(clients=frozenset({"chat"}))
        server.add_client(clientId="chat", serviceAccountsEnabled=True, protocolMappers=[])
        with server.api() as api:
            before = read_snapshot(api, question)
            server.client("chat")["protocolMappers"] = [
                {**mapper, "id": mapper["name"], "consentRequired": False} for mapper in reversed(CLIENT_ID_MAPPERS)
            ]
            after = read_snapshot(api, question)
            server.client("chat")["protocolMappers"][0]["config"] = {}
            changed = read_snapshot(api, question)

        assert (after.hash == before.hash) is old
        assert changed.hash != after.hash


def _add_group_role(server: FakeKeycloak) -> None:
    server.granted[next(iter(server.granted))].add(server.add_role("chat", "x"))


_CHANGES: list[Callable[[FakeKeycloak], object]] = [
    lambda server: server.client("chat").update(fullScopeAllowed=False),
    lambda server: server.client("chat").update(attributes={"access.token.lifespan": "60"}),
    lambda server: server.client("chat")["defaultClientScopes"].remove("basic"),
    lambda server: server.scope("roles")["protocolMappers"].pop(),
    lambda server: server.add_client(clientId="another", defaultClientScopes=["basic"]),
    lambda server: server.policies.append({"name": "p", "enabled": True}),
    _add_group_role,
    lambda server: server.mapped.update({server.client_id("chat"): {server.default_role}}),
    lambda server: server.inside.update({server.default_role: {next(iter(server.roles))}}),
]


def test_a_token_that_is_refused_is_renewed_once() -> None:
    tokens: Iterator[str] = iter(["old", "new", "never"])
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json=[]) if "new" in seen[-1] else httpx.Response(401)

    with AdminApi(target_of(), token=lambda: next(tokens), transport=httpx.MockTransport(answer)) as api:
        assert api.get("clients", needs="view-clients") == []
    assert seen == ["Bearer old", "Bearer new"]


def _raises(error: Exception) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda request: httpx.Response(401), "refuses the token that Keycloak itself issued"),
        (lambda request: httpx.Response(302, headers={"Location": "https://elsewhere.example"}), "answered 302"),
        (lambda request: httpx.Response(200, text="<html>"), "something else than JSON"),
        (lambda request: httpx.Response(200, json={}), "something else than a list"),
        (lambda request: httpx.Response(200, content=b" " * (33 * 1024 * 1024)), "more than"),
        (
            lambda request: httpx.Response(400, json={"errorMessage": "bad\x1b[31m name"}),
            "answered 400 .*: bad.\\[31m name",
        ),
        (_raises(httpx.ConnectError("secret-token")), "cannot be reached .ConnectError.[.]$"),
        (_raises(httpx.ReadTimeout("secret-token")), "did not answer in full within 60 seconds[.]$"),
    ],
    ids=["401", "redirect", "html", "no list", "too large", "escape", "unreachable", "timeout"],
)
def test_what_goes_wrong_is_one_sentence_without_the_token(answer: Any, said: str) -> None:
    with (
        AdminApi(target_of(), token=lambda: "secret-token", transport=httpx.MockTransport(answer)) as api,
        pytest.raises(AdminError, match=said) as caught,
    ):
        list(api.pages("clients", needs="view-clients"))
    assert "secret-token" not in str(caught.value)
    assert caught.value.__context__ is None


def test_names_are_one_segment_of_a_path_whatever_is_in_them() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(200, json=[])

    with AdminApi(target_of("a b"), token=lambda: "t", transport=httpx.MockTransport(answer)) as api:
        api.get("clients", "../../master", needs="view-clients", clientId="a&b=c")
    assert seen == ["/admin/realms/a%20b/clients/..%2F..%2Fmaster?clientId=a%26b%3Dc"]


def test_the_version_is_known_from_the_features_if_it_is_not_shown() -> None:
    for server, version in ((FakeKeycloak(), "26.7.3"), (FakeKeycloak(old=True), "26.0.8")):
        with server.api() as api:
            assert api.version() == version


# The log-in


def test_the_admin_client_is_read_from_its_own_variables_and_never_that_of_a_service() -> None:
    service = {"KEYCLOAK_CLIENT_ID": "crm", "KEYCLOAK_CLIENT_SECRET": "of-the-service", "KEYCLOAK_AUDIENCE": "x"}
    with pytest.raises(ConfigurationError, match="Set KEYCLOAK_ADMIN_CLIENT_ID"):
        AdminTarget.of({**PLACE, **service})
    target = AdminTarget.of(
        {**PLACE, **service, "KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "its-own"}
    )

    assert target.login.client_id == "planner"
    assert target.login.secret() == "its-own"
    assert (target.server, target.realm, target.issuer) == (
        "https://sso.example",
        "corp",
        "https://sso.example/realms/corp",
    )


def test_options_say_which_realm_and_the_environment_which_certificates_and_which_proxy(tmp_path: Path) -> None:
    environment = {
        "KEYCLOAK_REALM": "corp",
        "KEYCLOAK_CA_FILE": str(tmp_path / "ca.pem"),
        "KEYCLOAK_PROXY": "http://proxy.example:3128",
        "KEYCLOAK_ADMIN_CLIENT_ID": "planner",
        "KEYCLOAK_ADMIN_CLIENT_SECRET": "its-own",
    }
    target = AdminTarget.of(environment, url="https://staging.example", realm="other")

    assert (target.server, target.realm) == ("https://staging.example", "other")
    assert target.login.ca_file == tmp_path / "ca.pem"
    assert str(target.login.proxy) == "http://proxy.example:3128"
    with pytest.raises(ConfigurationError, match="KEYCLOAK_CA_FILE: cannot read"):
        AdminApi(target)


ADMIN = {"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "of-staging"}


@pytest.mark.parametrize(
    "place",
    [
        {"KEYCLOAK_URL": "https://staging.example"},
        {"KEYCLOAK_ISSUER": "https://staging.example/realms/corp"},
        {"KEYCLOAK_PUBLIC_URL": "https://staging.example"},
        {"KEYCLOAK_URL": "http://sso.example"},
        {"KEYCLOAK_URL": "https://sso.example:8443"},
    ],
    ids=str,
)
def test_the_secret_for_the_server_of_the_variables_is_not_sent_to_another_one_that_an_option_names(
    place: dict[str, str],
) -> None:
    with pytest.raises(ConfigurationError, match=f"--url names another server than {next(iter(place))}[.]"):
        AdminTarget.of({**place, **ADMIN}, url="https://sso.example", realm="corp")


def test_an_option_for_the_address_is_the_whole_address() -> None:
    variables = {
        "KEYCLOAK_URL": "https://sso.example:443/keycloak",
        "KEYCLOAK_ISSUER": "https://public.example/realms/corp",
        "KEYCLOAK_PUBLIC_URL": "https://public.example",
        "KEYCLOAK_AUTH_PATH": "/auth",
        "KEYCLOAK_REALM": "corp",
    }
    target = AdminTarget.of({**variables, **ADMIN}, url="https://sso.example", realm="")

    assert (target.server, target.issuer) == ("https://sso.example", "https://sso.example/realms/corp")
    assert target.login.server == target.server


def test_an_admin_client_signs_with_a_key(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(new_private_key(KeyType.EC))
    signing = {
        "KEYCLOAK_ADMIN_CLIENT_ID": "planner",
        "KEYCLOAK_ADMIN_CLIENT_AUTH": "private_key_jwt",
        "KEYCLOAK_ADMIN_CLIENT_KEY_FILE": str(file),
    }

    assert AdminTarget.of({**PLACE, **signing}).login.client_key_file == file


def test_a_missing_secret_is_named_with_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="KEYCLOAK_ADMIN_CLIENT_SECRET_FILE"):
        AdminTarget.of({**PLACE, "KEYCLOAK_ADMIN_CLIENT_ID": "planner"})


@pytest.mark.parametrize("place", [{}, {"KEYCLOAK_URL": "https://sso.example"}, {"KEYCLOAK_REALM": "corp"}], ids=str)
def test_a_missing_place_is_named_with_both_variables_and_both_options(place: dict[str, str]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^Set KEYCLOAK_URL and KEYCLOAK_REALM \(or write --url and --realm\)\.$"
    ):
        AdminTarget.of({"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "s", **place})


def test_an_issuer_alone_says_server_and_realm() -> None:
    login = {"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "s"}
    target = AdminTarget.of({"KEYCLOAK_ISSUER": "https://sso.example/realms/corp", **login})
    assert (target.server, target.realm) == ("https://sso.example", "corp")


def test_a_log_in_that_cannot_be_tried_names_the_variable_of_the_address_that_is_used() -> None:
    login = {"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "s"}
    place = {"KEYCLOAK_URL": "http://127.0.0.1:1", "KEYCLOAK_REALM": "corp"}
    for own in ({}, {"KEYCLOAK_ADMIN_REALM": "master"}):
        with (
            AdminApi(AdminTarget.of({**place, **login, **own})) as api,
            pytest.raises(AdminError, match="is KEYCLOAK_URL right"),
        ):
            api.get(needs="view-realm")


def test_the_embedded_issuer_is_told_from_a_server_without_the_realm() -> None:
    realm = {
        "realm": "corp",
        "enabled": True,
        "clients": [{"clientId": "planner", "secret": "its-own-secret", "serviceAccountsEnabled": True}],
    }
    issuer = EmbeddedIssuer(realm)
    with issuer.serving() as server:
        place = {"KEYCLOAK_URL": server.url, "KEYCLOAK_REALM": "corp"}
        login = {"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "its-own-secret"}
        with (
            AdminApi(AdminTarget.of({**place, **login})) as api,
            pytest.raises(AdminError, match=r"is the embedded issuer \(s2s-fastapi dev\), which has no admin API"),
        ):
            api.get(needs="view-realm")


def test_a_server_that_answers_byte_by_byte_has_only_the_time_of_one_answer() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip(start: bytes) -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(start)
                while not ended.wait(0.05):
                    connection.sendall(b"x")

        for start in (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Never: "):
            ended.clear()
            thread = threading.Thread(target=drip, args=(start,))
            thread.start()
            target = replace(target_of(), server=f"http://127.0.0.1:{listening.getsockname()[1]}")
            with (
                AdminApi(target, token=lambda: "a-token", seconds=0.3) as api,
                pytest.raises(AdminError, match=r"did not answer in full within 0[.]3 seconds"),
            ):
                api.get(needs="view-realm")
            ended.set()
            thread.join()


def test_a_list_without_an_end_is_given_up() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        first = int(request.url.params["first"])
        return httpx.Response(200, json=[{"id": f"{number}"} for number in range(first, first + 50_000)])

    with (
        AdminApi(target_of(), token=lambda: "a-token", transport=httpx.MockTransport(page)) as api,
        pytest.raises(AdminError, match="more than 100000 entries"),
    ):
        for _ in api.pages("clients", needs="view-clients"):
            pass


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("", ["accessTokenLifespan"]),
        ("", "accessTokenLifespan"),
        ("/clients", [{"id": "no client id"}]),
        ("/client-scopes", {"name": "no list"}),
        ("/client-policies/policies", {"policies": "all"}),
    ],
)
def test_an_answer_in_an_unexpected_form_is_one_sentence(path: str, content: Any) -> None:
    server = FakeKeycloak()
    server.before = lambda _, asked: httpx.Response(200, json=content) if asked == f"/admin/realms/corp{path}" else None
    with server.api() as api, pytest.raises(AdminError, match="something else") as caught:
        read_snapshot(api, Question(clients=frozenset({"chat"})))
    assert caught.value.__context__ is None


def test_an_answer_nested_without_an_end_is_no_json() -> None:
    deep = httpx.Response(200, content=b"[" * 200_000)
    with (
        AdminApi(target_of(), token=lambda: "a-token", transport=httpx.MockTransport(lambda _: deep)) as api,
        pytest.raises(AdminError, match="something else than JSON"),
    ):
        api.get(needs="view-realm")


@pytest.mark.parametrize("url", ["http://keycloak.corp.example", "http://keycloak.corp.example/auth"])
def test_plain_http_to_another_machine_is_said(url: str) -> None:
    target = target_of()
    assert "is plain http" in replace(target, server=url).unprotected
    for fine in ("https://keycloak.corp.example", "http://localhost:8080", "http://[::1]:8080", "http://127.0.0.1"):
        assert replace(target, server=fine).unprotected == ""
