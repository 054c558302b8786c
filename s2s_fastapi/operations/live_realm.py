"""The token that a running server would give a client: Keycloak's own example token, corrected.

Keycloak makes an example token for the admin console (``evaluate-scopes``). It leaves no session, and differs from a real one:

- it lacks what the token request itself writes (``client_id``, ``clientHost``, ``clientAddress``), and has a ``sid``;
- it does not see why Keycloak would give no token: an unknown scope, a disabled client, proof of possession.

So this module also reads the realm into the realm model. The model says what the example does not see, corrects the claims in which the
example is known to differ, and says where each audience and role comes from. If the two disagree about any other claim, a note says so.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT
from s2s_fastapi.operations.admin import AdminApi
from s2s_fastapi.operations.explanation import Question, Token, denied, token_of_claims, whole_claims
from s2s_fastapi.operations.forbidden import KEYCLOAKS_CLIENTS
from s2s_fastapi.operations.relations import certificate_notes
from s2s_fastapi.operations.snapshot import Question as RealmQuestion
from s2s_fastapi.operations.snapshot import Snapshot, read_snapshot
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.text import listed, named, printable

__all__ = ["LiveRealm"]

_VIEW_CLIENTS: Final = "view-clients"
_OF_THE_REQUEST: Final = ("client_id", "clientHost", "clientAddress", "cnf", "sid", "session_state")
"""The claims in which an example differs from the token that the client gets."""
_OF_EACH_TOKEN: Final = frozenset({*_OF_THE_REQUEST, "exp", "iat", "auth_time", "jti", "iss", "sub"})
"""The claims that are not compared: each token has its own, or the example is known to differ."""
_SHOWN: Final = 200


class LiveRealm:
    """The realm of a running server, read with an administrator's rights. Nothing is changed."""

    def __init__(self, api: AdminApi, audiences: Collection[str] = (), clock: Callable[[], float] = time.time) -> None:
        """Take the Admin API, and the audiences of the apps that may be asked about."""
        self._api = api
        self._audiences = frozenset(audiences)
        self._clock = clock
        self._read: dict[str, tuple[Snapshot, RealmModel]] = {}

    def model(self, question: Question) -> RealmModel:
        """Return the realm as the model reads it."""
        return self._realm(question)[1]

    def predicted(self, question: Question) -> Token:
        """Return the token that the server would give the client now.

        Raises:
            AdminError: The admin client lacks a right, or Keycloak does not answer; the sentence names it.
        """
        snapshot, model = self._realm(question)
        server = f"the realm {named(snapshot.realm)} on {self._api.target.server}"
        notes = [f"Not looked at: {each}." for each in snapshot.notes]
        if model.client(question.client_id) is not None:
            notes.append(
                f"Whether the secret or key of {named(question.client_id)} is right is not looked at: s2s-fastapi doctor does that, in its"
                " environment."
            )
        jkt = ANY_THUMBPRINT if question.dpop else ""
        outcome = model.service_token(question.client_id, scope=question.scope, jkt=jkt, x5t=ANY_THUMBPRINT)
        if isinstance(outcome, Denied):
            source = f"read from {server}: it gives none"
            return denied(model, question, outcome, source=source, notes=tuple(notes), clock=self._clock)
        example = self._example(snapshot, question)
        notes += certificate_notes(model, question.client_id)
        notes += [f"The example token has what this package cannot predict: {each}." for each in outcome.unknown]
        if "cnf" in outcome.claims:  # no example has a proof
            example = {**example, "typ": outcome.claims["typ"]}
        notes += _differences(example, outcome)
        claims = self._corrected(example, model, outcome, snapshot, question.client_id)
        source = f"the example token of {server}, with the claims of a token request"
        return token_of_claims(model, question, outcome, claims, source=source, notes=tuple(notes), clock=self._clock)

    def _example(self, snapshot: Snapshot, question: Question) -> Mapping[str, Any]:
        found = self._api.get(
            "clients",
            snapshot.ids["client", question.client_id],
            "evaluate-scopes",
            "generate-example-access-token",
            needs=_VIEW_CLIENTS,
            scope=question.scope or "",
            userId=snapshot.ids["account", question.client_id],
        )
        return found if isinstance(found, dict) else {}

    def _corrected(
        self, example: Mapping[str, Any], model: RealmModel, outcome: Granted, snapshot: Snapshot, client_id: str
    ) -> dict[str, Any]:
        """Return the claims of the token that the client gets. Its dates begin now, by this host's clock.

        If a mapper of the realm writes ``client_id``, the example has it. Then it is not known which of the two wins: the mapper's is shown.
        """
        ours = whole_claims(model, client_id, outcome, now=int(self._clock()))
        claims = {name: value for name, value in example.items() if name not in _OF_THE_REQUEST}
        claims |= {name: ours[name] for name in (*_OF_THE_REQUEST, "iat", "exp", "jti") if name in ours}
        if "client_id" in example:
            claims["client_id"] = example["client_id"]
        begin, end = example.get("iat"), example.get("exp")
        if isinstance(begin, int) and isinstance(end, int):
            claims["exp"] = claims["iat"] + end - begin
        if "sub" in ours:  # the example of a lightweight token lacks it
            claims.setdefault("sub", snapshot.ids["account", client_id])
        return claims

    def _realm(self, question: Question) -> tuple[Snapshot, RealmModel]:
        client_id = question.client_id
        if client_id not in self._read:
            asked = RealmQuestion(
                clients=frozenset({client_id}),
                scopes=frozenset(question.scopes),
                audiences=self._audiences | ({question.to} - {""}),
                roles=frozenset(),
            )
            snapshot = read_snapshot(self._api, asked)
            self._read[client_id] = snapshot, snapshot.model
        return self._read[client_id]


def _differences(example: Mapping[str, Any], outcome: Granted) -> Iterator[str]:
    """Say in which claims the server's example is not what the realm model predicts. The example counts."""
    names = (example.keys() | outcome.claims.keys()) - _OF_EACH_TOKEN
    for name in sorted(names):
        real, ours = _plain(name, example.get(name)), _plain(name, outcome.claims.get(name))
        if real != ours:
            yield (
                f"The example token has {named(name)} {_shown(real)}, and this package predicts {_shown(ours)}. The example counts; the rows"
                " about where the contents come from may be incomplete."
            )


def _plain(name: str, value: Any) -> Any:
    """Return a claim so that the order of names does not count."""
    if name == "scope" and isinstance(value, str):
        return sorted(value.split())
    if name == "aud" and isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return sorted(value, key=str)
    if isinstance(value, dict):
        # What the roles of Keycloak's own clients contain is not read.
        kept = {key: inner for key, inner in value.items() if name != "resource_access" or key not in KEYCLOAKS_CLIENTS}
        return {key: _plain("", inner) for key, inner in sorted(kept.items())} or None
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "not at all"
    return listed(map(str, value)) if isinstance(value, list) else printable(str(value), _SHOWN)
