"""A proof is accepted if it is right in everything, and refused if one thing is wrong (RFC 9449 section 4.3)."""

import pytest

from s2s_fastapi.decision import Decision
from s2s_fastapi.proof.checked import Proof, check_proof
from tests.proof.broken import BROKEN, Asked, Broken, Key

NOW = 1_800_000_000.0
ASKED = Asked("POST", "https://api.example/v1/things", "eyJh.eyJp.c2ln", NOW)


def checked(key: Key, *values: bytes, asked: Asked = ASKED, now: float = NOW) -> Proof | Decision:
    return check_proof(
        values,
        thumbprint=key.thumbprint,
        method=asked.method,
        urls={asked.url},
        token=asked.token.encode(),
        now=now,
    )


@pytest.mark.parametrize("name", BROKEN)
def test_a_proof_with_one_broken_property_is_refused(name: str) -> None:
    broken: Broken = BROKEN[name]
    key = broken.key()
    found = checked(key, *broken.values(key, ASKED))
    assert isinstance(found, Decision), found
    assert found.reason is broken.reason
    assert broken.says in found.cure
    assert found.cure.endswith(".")
    assert len(found.cure) < 1000
    assert found.reason.error == "invalid_dpop_proof"
