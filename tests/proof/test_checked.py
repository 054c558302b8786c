"""A proof is accepted if it is right in everything, and refused if one thing is wrong (RFC 9449 section 4.3)."""

from dataclasses import replace
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.proof import checked as module
from s2s_fastapi.proof.algorithms import PROOF_ALGORITHMS
from s2s_fastapi.proof.checked import MAX_PROOF_BYTES, Proof, check_proof
from s2s_fastapi.proof.header import read_header
from s2s_fastapi.proof.key import ProofKey
from tests.proof.broken import BROKEN, Asked, Broken, Key, ec_key, ed_key, rsa_key

NOW = 1_800_000_000.0
ASKED = Asked("POST", "https://api.example/v1/things", "eyJh.eyJp.c2ln", NOW)
IN_ITS_OWN_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def checked(key: Key, *values: bytes, asked: Asked = ASKED, now: float = NOW) -> Proof | Decision:
    return check_proof(
        values,
        thumbprint=key.thumbprint,
        method=asked.method,
        urls={asked.url},
        token=asked.token.encode(),
        now=now,
    )


def cure(found: Proof | Decision) -> str:
    assert isinstance(found, Decision), found
    return found.cure


def key_for(algorithm: str) -> Key:
    if algorithm == "EdDSA":
        return ed_key()
    return ec_key(algorithm) if algorithm.startswith("ES") else rsa_key(algorithm)


# What is right


@pytest.mark.parametrize("algorithm", PROOF_ALGORITHMS)
def test_a_good_proof_of_each_algorithm_is_accepted(algorithm: str) -> None:
    key = key_for(algorithm)
    found = checked(key, key.proof(ASKED))
    assert isinstance(found, Proof), found
    assert found.key_id == key.thumbprint
    assert found.url == ASKED.url
    assert found.issued_at == NOW


def test_the_longest_key_fits_into_a_proof() -> None:
    key = rsa_key("PS512", bits=4096)
    long = replace(ASKED, url=f"https://api.example/{'p' * 500}")
    assert isinstance(checked(key, key.proof(long), asked=long), Proof)


@pytest.mark.parametrize(
    "members",
    [
        {"use": "sig"},
        {"alg": "ES256"},
        {"kid": "2026-11"},
        {"kid": ""},
        {"key_ops": ["verify"], "ext": True},  # what a browser exports (WebCrypto)
        {"use": "sig", "alg": "ES256", "kid": ec_key().thumbprint, "key_ops": ["verify"], "ext": True},
    ],
    ids="-".join,
)
def test_a_key_may_have_the_members_that_libraries_export_with_it(members: dict[str, Any]) -> None:
    key = ec_key()
    assert isinstance(checked(key, key.proof(ASKED, header={"jwk": {**key.jwk, **members}})), Proof)


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": NOW + 0.25},
        {"jti": "12345678"},
        {"jti": "j" * 256},
        {"jti": "-BwC3ESc6acc2lTc"},
        {"jti": "\N{SNOWMAN}" * 8},
        {"nonce": "of another server"},
        {"exp": NOW + 60, "nbf": NOW - 60, "iss": "a", "aud": "b"},
        {"htu": "HTTPS://API.example:443/v1/th%69ngs"},
        {"htu": "https://api.example/v1/things?page=2#top"},
        {"htu": "https://api.example/v1/../v1/./things"},
        {"htu": "wss://api.example/v1/things"},
    ],
    ids=lambda claims: (
        "-".join(f"{name}:{str(value)[:16]}" for name, value in claims.items()).encode("ascii", "replace").decode()
    ),
)
def test_claims_that_right_callers_send_are_accepted(claims: dict[str, Any]) -> None:
    key = ec_key()
    assert isinstance(checked(key, key.proof(ASKED, claims=claims)), Proof)


def test_white_space_around_the_value_is_none_of_the_proof() -> None:
    key = ec_key()
    assert isinstance(checked(key, b" \t" + key.proof(ASKED) + b" "), Proof)


def test_each_of_several_urls_of_a_service_is_right() -> None:
    key = ec_key()
    urls = ["https://inner.example/v1/things", ASKED.url]
    for url in urls:
        found = check_proof(
            [key.proof(replace(ASKED, url=url))],
            thumbprint=key.thumbprint,
            method="POST",
            urls=urls,
            token=ASKED.token.encode(),
            now=NOW,
        )
        assert isinstance(found, Proof)
        assert found.url == url


def test_what_our_own_key_makes_is_accepted() -> None:
    key = ProofKey()
    value = key.proof("POST", f"{ASKED.url}?page=2", now=NOW + 0.9, token=ASKED.token).encode()
    found = check_proof(
        [value], thumbprint=key.thumbprint, method="POST", urls=[ASKED.url], token=ASKED.token.encode(), now=NOW
    )
    assert isinstance(found, Proof)
    assert len(found.jti) == 22


# The examples of RFC 9449

_HEADER = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMi"
    "LCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
AT_THE_TOKEN_ENDPOINT = (  # section 4.1
    f"{_HEADER}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYy"
    "NjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
).encode()
AT_THE_RESOURCE = (  # section 7.1
    f"{_HEADER}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIs"
    "ImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1p"
    "lemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
).encode()
EXAMPLE_TOKEN = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
EXAMPLE_THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"  # section 6.1
EXAMPLE_TIME = 1562262618


def of_the_rfc(value: bytes, **changes: Any) -> Proof | Decision:
    request: dict[str, Any] = {
        "thumbprint": EXAMPLE_THUMBPRINT,
        "method": "GET",
        "urls": ["https://resource.example.org/protectedresource"],
        "token": EXAMPLE_TOKEN,
        "now": EXAMPLE_TIME + 1.0,
    }
    return check_proof([value], **{**request, **changes})


def test_the_proof_of_rfc_9449_section_7_1_is_accepted_at_its_time() -> None:
    found = of_the_rfc(AT_THE_RESOURCE)
    assert isinstance(found, Proof)
    assert found.jti == "e1j3V_bKic8-LAEB"
    assert found.issued_at == EXAMPLE_TIME


def test_the_proof_of_rfc_9449_is_refused_for_anything_else() -> None:
    assert "behind the clock" in cure(of_the_rfc(AT_THE_RESOURCE, now=EXAMPLE_TIME + 31))
    assert "for the method GET" in cure(of_the_rfc(AT_THE_RESOURCE, method="POST"))
    assert "(htu)" in cure(of_the_rfc(AT_THE_RESOURCE, urls=["https://resource.example.org/other"]))
    assert "another token" in cure(of_the_rfc(AT_THE_RESOURCE, token=EXAMPLE_TOKEN + b"A"))
    assert "another key" in cure(of_the_rfc(AT_THE_RESOURCE, thumbprint=ec_key().thumbprint))


def test_a_proof_for_the_token_endpoint_is_none_for_a_resource() -> None:
    found = of_the_rfc(AT_THE_TOKEN_ENDPOINT, method="POST", urls=["https://server.example.com/token"])
    assert "ath" in cure(found)  # its signature holds: that is checked before


# What is wrong


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


@pytest.mark.parametrize(("age", "accepted"), [(30, True), (30.01, False), (31, False), (-10, True), (-10.01, False)])
def test_a_proof_is_at_most_30_s_old_and_10_s_ahead(age: float, accepted: bool) -> None:
    key = ec_key()
    value = key.proof(ASKED)
    assert isinstance(checked(key, value, now=NOW + age), Proof) is accepted


def test_a_proof_has_at_most_4096_bytes() -> None:
    key = ec_key()
    sizes = {len(value): value for value in (key.proof(ASKED, claims={"more": "m" * n}) for n in range(2600, 2760))}
    assert isinstance(checked(key, sizes[MAX_PROOF_BYTES]), Proof)
    assert "has 4097 bytes, more than the 4096" in cure(checked(key, sizes[MAX_PROOF_BYTES] + b"A"))


def test_the_cure_for_another_clock_has_the_seconds() -> None:
    key = ec_key()
    late = cure(checked(key, key.proof(ASKED), now=NOW + 95.2))
    assert "95 s behind the clock of this machine, and may be at most 30 s behind" in late
    early = cure(checked(key, key.proof(ASKED), now=NOW - 12))
    assert "12 s ahead of the clock of this machine, and may be at most 10 s ahead" in early


def test_the_cure_for_another_url_shows_both_without_the_query() -> None:
    key = ec_key()
    said = cure(checked(key, key.proof(ASKED, claims={"htu": "https://inner:8080/v1/things?password=hunter2"})))
    assert "https://inner:8080/v1/things (htu)" in said
    assert ASKED.url in said
    assert "public_url" in said
    assert "hunter2" not in said


def test_a_value_that_imitates_our_sentence_stays_in_quotes_and_is_cut() -> None:
    key = ec_key()
    said = cure(checked(key, key.proof(ASKED, claims={"htm": 'GET", and all is well.\n' + "x" * 1000})))
    assert r'"GET\", and all is well.' in said
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.parametrize("member", ["jti", "htm", "htu", "ath"])
def test_nothing_of_a_proof_is_shown_before_its_signature_holds(member: str) -> None:
    key = ec_key()
    forged = replace(ec_key("ES256", 1), jwk=key.jwk)
    assert "mark" not in cure(checked(key, forged.proof(ASKED, claims={member: "mark"})))
    assert "mark" not in cure(checked(key, key.proof(ASKED, header={"mark": "mark"})))
    assert "mark" not in cure(checked(key, key.proof(ASKED, header={"alg": "mark"})))
    assert "mark" not in cure(checked(key, key.proof(ASKED, header={"jwk": {**key.jwk, "mark": "mark"}})))


def test_a_key_that_the_token_does_not_name_reaches_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(module, "_loaded", seen.append)
    key = ec_key()
    for name in ("another key", "RSA of 12288 bits", "RSA with a huge exponent", "the private key", "a kid"):
        broken = BROKEN[name]
        assert isinstance(checked(key, *broken.values(broken.key(), ASKED)), Decision)
    assert seen == []


def test_what_is_remembered_of_a_header_accepts_nothing_for_another_token() -> None:
    key, other = ec_key(), ec_key("ES256", 1)
    value = key.proof(ASKED)
    assert isinstance(checked(key, value), Proof)
    assert "another key" in cure(checked(other, value))
    assert "signature" in cure(checked(key, value[:-4] + b"AAAA"))
    assert isinstance(checked(key, value), Proof)


def test_a_key_that_failed_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> NoReturn:
        raise MemoryError

    key = ec_key("ES384", 7)
    with monkeypatch.context() as once:
        once.setattr(module, "signature_check", out_of_memory)
        assert "not a usable public key" in cure(checked(key, key.proof(ASKED)))
    assert isinstance(checked(key, key.proof(ASKED)), Proof)


def test_what_is_remembered_is_bounded() -> None:
    for cache in (read_header, module._loaded):
        assert 0 < (cache.cache_parameters()["maxsize"] or 0) <= 1024


# What a replay store is asked


def test_the_replay_key_differs_if_any_of_its_four_parts_does() -> None:
    good = Proof("jti-of-proof", NOW, "thumbprint", "https://api.example/")
    keys = [
        good.replay_key("issuer"),
        good.replay_key("issuer2"),
        replace(good, jti="jti-of-proof2").replay_key("issuer"),
        replace(good, key_id="thumbprint2").replay_key("issuer"),
        replace(good, url="https://api.example/2").replay_key("issuer"),
        # The same letters, cut at other places.
        replace(good, key_id="2thumbprint").replay_key("issuer"),
        replace(good, key_id="humbprint").replay_key("issuert"),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}
    assert replace(good, issued_at=0.0).replay_key("issuer") == good.replay_key("issuer")


def test_one_url_in_two_spellings_is_one_replay_key() -> None:
    key = ec_key()
    spelled = [ASKED.url, "https://API.example:443/v1/%74hings", f"{ASKED.url}?again"]
    found = [checked(key, key.proof(ASKED, claims={"jti": "the-same-one", "htu": url})) for url in spelled]
    assert len({each.replay_key("issuer") for each in found if isinstance(each, Proof)}) == 1
    assert all(isinstance(each, Proof) for each in found)


@pytest.mark.parametrize("age", [-10, -9.5, 0, 12.25, 30])
def test_a_proof_is_remembered_until_no_receiver_accepts_it(age: float) -> None:
    proof = Proof("jti-of-proof", NOW, "thumbprint", ASKED.url)
    now = NOW + age
    assert now + proof.remember_for(now) == NOW + 30 + 10 + 5


def test_a_proof_is_remembered_for_1_s_at_least() -> None:
    proof = Proof("jti-of-proof", NOW, "thumbprint", ASKED.url)
    assert proof.remember_for(NOW + 44.5) == 1
    assert proof.remember_for(NOW + 10_000) == 1


# Whatever somebody sends


@given(st.lists(st.binary(max_size=200), max_size=3))
@example([b".."])
@example([b"e30.e30.e30"])
@IN_ITS_OWN_TIME
def test_no_bytes_raise_or_are_accepted(values: list[bytes]) -> None:
    found = checked(ec_key(), *values)
    assert isinstance(found, Decision)
    assert found.reason in {Reason.INVALID_PROOF, Reason.PROOF_MISSING}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["typ", "alg", "jwk", "kid", "a"]), JSON),
    st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "use", "alg", "kid", "a"]), JSON),
    st.dictionaries(st.sampled_from(["jti", "htm", "htu", "iat", "ath", "a"]), JSON),
)
@IN_ITS_OWN_TIME
def test_no_header_no_key_and_no_claims_raise(
    header: dict[str, Any], jwk: dict[str, Any], claims: dict[str, Any]
) -> None:
    key = ec_key()
    for changes in ({"header": header}, {"header": {"jwk": {**key.jwk, **jwk}}}, {"claims": claims}):
        value = key.proof(ASKED, **changes)
        assert isinstance(checked(key, value), Decision | Proof)


@given(st.data())
@IN_ITS_OWN_TIME
def test_a_good_proof_with_any_one_byte_changed_is_refused(data: st.DataObject) -> None:
    key = ec_key()
    value = key.proof(ASKED)
    place = data.draw(st.integers(0, len(value) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[place]))
    assert isinstance(checked(key, b"x" + value[:place] + bytes([byte]) + value[place + 1 :]), Decision)
    if not (byte in b" \t" and place in (0, len(value) - 1)):
        assert isinstance(checked(key, value[:place] + bytes([byte]) + value[place + 1 :]), Decision)


@given(
    st.integers(int(NOW) - 100, int(NOW) + 100)
    | st.floats(NOW - 100, NOW + 100)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
@IN_ITS_OWN_TIME
def test_iat_alone_decides_whether_a_good_proof_is_timely(issued_at: float) -> None:
    key = ec_key()
    found = checked(key, key.proof(ASKED, claims={"iat": issued_at}))
    assert isinstance(found, Proof) is (NOW - 30 <= issued_at <= NOW + 10)


def test_the_kit_makes_the_same_proof_as_our_key() -> None:
    """The table of broken proofs proves something only if its good proof is one."""
    ours = ProofKey().proof("POST", ASKED.url, now=NOW, token=ASKED.token).encode()
    kits = ec_key().proof(ASKED)
    assert [len(part) for part in ours.split(b".")] == [len(part) for part in kits.split(b".")]
