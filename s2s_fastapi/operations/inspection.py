"""What an administrator sees of one service in its realm, for the checks of `doctor`. It is read and never changed.

As in `s2s_fastapi.operations.snapshot`, only the fields listed here are taken from an answer, so no secret gets into a report.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from s2s_fastapi.downstream import Downstream
from s2s_fastapi.names import name_problem
from s2s_fastapi.operations.findings import Change
from s2s_fastapi.operations.snapshot import Question, ReadApi, Snapshot, audience_of, read_snapshot
from s2s_fastapi.realm.model import Granted
from s2s_fastapi.realm.provenance import Provenance
from s2s_fastapi.text import named

__all__ = ["Inspection", "inspected"]

_VIEW_CLIENTS: Final = "view-clients"
_EXPIRES: Final = "client.secret.expiration.time"
_ROTATED: Final = "client.secret.rotated"
_ROTATED_EXPIRES: Final = "client.secret.rotated.expiration.time"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One client, the clients that it calls, and the scopes between them."""

    client_id: str
    reader: str
    """The admin client that read it."""
    snapshot: Snapshot
    secret_expires: int | None = None
    """The second at which Keycloak refuses the client's secret; None if it never does."""
    former_expires: int | None = None
    """The same for the secret that the client had before; None if there is none."""
    web_origins: tuple[str, ...] = ()
    authorization: bool = False
    """Whether Authorization Services are on: a change without this field deletes their settings."""
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
        outcome = self.snapshot.model.service_token(self.client_id, scope=" ".join(sorted(scopes)) or None)
        return outcome if isinstance(outcome, Granted) else None

    def carriers(self, audience: str) -> tuple[str, ...]:
        """Return the client scopes with an Audience mapper for an audience."""
        return tuple(
            sorted(
                name
                for name, scope in self.snapshot.scopes.items()
                if any(audience_of(mapper) == audience for mapper in scope["protocolMappers"])
            )
        )

    # Changes that mend something

    @cached_property
    def root(self) -> str:
        """The path of the realm in the Admin API."""
        return f"/admin/realms/{quote(self.snapshot.realm, safe='')}"

    def change_client(self, **members: Any) -> Change:
        """Return the change of some members of the client. All others stay."""
        found = self.client or {}
        body = {
            "clientId": self.client_id,
            # Keycloak 26.0 makes the service account anew, without its roles, if the first of them is missing.
            "serviceAccountsEnabled": bool(found.get("serviceAccountsEnabled")),
            "authorizationServicesEnabled": self.authorization,
            **members,
        }
        return Change("PUT", f"{self.root}/clients/{self._id('client', self.client_id)}", body)

    def assign(self, scope: str, *, optional: bool = False) -> Change:
        """Return the assignment of a client scope to the client."""
        kind = "optional" if optional else "default"
        client = self._id("client", self.client_id)
        return Change("PUT", f"{self.root}/clients/{client}/{kind}-client-scopes/{self._id('scope', scope)}")

    def new_secret(self) -> Change:
        """Return the request that makes a new secret for the client."""
        return Change("POST", f"{self.root}/clients/{self._id('client', self.client_id)}/client-secret")

    def _id(self, kind: str, name: str) -> str:
        return self.snapshot.ids.get((kind, name)) or f"<id of {named(name)}>"

    def scope_path(self, scope: str) -> str:
        """Return the path of a client scope in the Admin API."""
        return f"{self.root}/client-scopes/{self._id('scope', scope)}"


def inspected(api: ReadApi, client_id: str, downstreams: Iterable[Downstream], *, reader: str = "") -> Inspection:
    """Read the client, the clients that it calls, and the scopes that may stand between them.

    Raises:
        AdminForbidden: A right is missing; the sentence names it.
        AdminError: There is no such realm, or Keycloak does not answer.
    """
    downstreams = tuple(downstreams)
    audiences = frozenset(name for each in downstreams for name in each.audiences)
    scopes = frozenset(name for each in downstreams for name in each.scopes) | {
        f"{name}-audience" for name in audiences
    }
    clients = {client_id, *(name for name in audiences if not name_problem(name))}
    snapshot = read_snapshot(api, Question(clients=frozenset(clients), scopes=scopes, audiences=audiences))
    uuid = snapshot.ids.get(("client", client_id))
    if uuid is None:
        listed = (str(one.get("clientId", "")) for one in api.pages("clients", needs=_VIEW_CLIENTS))
        similar = tuple(sorted(name for name in listed if name.casefold() == client_id.casefold()))
        return Inspection(client_id=client_id, reader=reader, snapshot=snapshot, similar=similar)
    found = api.get("clients", uuid, needs=_VIEW_CLIENTS)
    attributes = found.get("attributes") or {}
    return Inspection(
        client_id=client_id,
        reader=reader,
        snapshot=snapshot,
        secret_expires=_seconds(attributes.get(_EXPIRES)),
        former_expires=_seconds(attributes.get(_ROTATED_EXPIRES)) if attributes.get(_ROTATED) else None,
        web_origins=tuple(sorted(map(str, found.get("webOrigins") or ()))),
        authorization=bool(found.get("authorizationServicesEnabled")),
    )


def _seconds(value: object) -> int | None:
    """Return a time of Keycloak in seconds. It writes 0 if there is none."""
    text = str(value or "")
    return int(text) if text.isascii() and text.isdigit() and int(text) else None
