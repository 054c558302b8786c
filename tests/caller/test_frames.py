"""Error trackers record the locals of every frame above a log record: no such frame shows what proves who we are."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from s2s_fastapi import KeycloakSettings, ServiceTokenAuth
from s2s_fastapi.caller.client_key import ClientKey
from s2s_fastapi.caller.registration import registration
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer
from tests.testing.asking import SECRET, client, document


class Tracker(logging.Handler):
    """Keeps, with each record, what the frames above it show."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        frame: Any = sys._getframe().f_back
        while frame is not None:
            # What httpcore's own frames hold while it reports each of its steps at DEBUG, nobody can change from outside.
            if record.levelno > logging.DEBUG or frame.f_globals.get("__name__", "").startswith("s2s_fastapi"):
                shown = " ".join(repr(value) for value in frame.f_locals.values())
                self.kept.append((record.name, frame.f_code.co_name, shown))
            frame = frame.f_back


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    tracker, root = Tracker(), logging.getLogger()
    level = root.level
    root.addHandler(tracker)
    root.setLevel(logging.DEBUG)
    try:
        yield tracker
    finally:
        root.setLevel(level)
        root.removeHandler(tracker)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_no_frame_above_a_log_record_shows_a_secret_an_assertion_or_a_token(
    tracker: Tracker, tmp_path: Path, method: str
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    signs = client("signs", **registration("signs", [ClientKey.read(file)]))
    issuer = EmbeddedIssuer(document(clients=[client("caller"), signs]))
    proof: dict[str, Any] = {"client_id": "caller", "client_secret": SECRET}
    if method == "private_key_jwt":
        proof = {"client_id": "signs", "client_key_file": file}

    with issuer.serving(), using(TokenSource()):
        settings = KeycloakSettings(url=issuer.url, realm="corp", client_auth=method, **proof)
        token = ServiceTokenAuth(settings=settings).token()

    (exchange,) = issuer.requests("token")
    header, assertion = exchange.request.header("authorization") or "", exchange.form.get("client_assertion", "")
    sent = [token, SECRET, file.read_text().splitlines()[1], header.rpartition(" ")[2], assertion.rpartition(".")[2]]
    names = {name for name, _, _ in tracker.kept}
    assert "httpcore.http11" in names
    assert "httpx" not in names  # its record would come before the token is there for others
    assert "_converse" in {frame for _, frame, _ in tracker.kept}
    assert [
        (name, frame)
        for name, frame, shown in tracker.kept
        # The issuer's own threads stand for Keycloak, and log nothing; this frame knows what it looks for.
        if any(one in shown for one in sent if one) and not frame.startswith("test_")
    ] == []
