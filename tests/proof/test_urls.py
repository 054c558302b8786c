"""Two spellings of one URL are equal, two URLs are not (RFC 3986 section 6.2.2 and 6.2.3)."""

import string

import httpx
import idna
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from s2s_fastapi.proof.urls import normalised

IN_ITS_OWN_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://api.example/v1/things", "https://api.example/v1/things"),
        ("https://api.example/v1/things/", "https://api.example/v1/things/"),
        ("HTTPS://API.Example/V1", "https://api.example/V1"),
        ("https://api.example", "https://api.example/"),
        ("https://api.example?a=b", "https://api.example/"),
        ("https://api.example#a", "https://api.example/"),
        ("https://api.example/a?b#c", "https://api.example/a"),
        ("https://api.example/a#b?c", "https://api.example/a"),
        ("https://api.example/a?b=/../c", "https://api.example/a"),
        ("https://api.example:443/a", "https://api.example/a"),
        ("https://api.example:/a", "https://api.example/a"),
        ("http://api.example:80/a", "http://api.example/a"),
        ("http://api.example:443/a", "http://api.example:443/a"),
        ("https://api.example:08443/a", "https://api.example:8443/a"),
        ("https://api.example/%7Ea/%2d%2E%5f", "https://api.example/~a/-._"),
        ("https://api.example/a%2fb", "https://api.example/a%2Fb"),
        ("https://api.example/a%2Fb/%c3%bc", "https://api.example/a%2Fb/%C3%BC"),
        ("https://api.example/\N{LATIN SMALL LETTER U WITH DIAERESIS}", "https://api.example/%C3%BC"),
        ("https://api.example/a b|c", "https://api.example/a%20b%7Cc"),
        ("https://api.example/a;b=c,d/(e)!*'$&+:@", "https://api.example/a;b=c,d/(e)!*'$&+:@"),
        ("https://api.example/a/./b/../c", "https://api.example/a/c"),
        ("https://api.example/a/%2e/b/%2E%2e/c", "https://api.example/a/c"),
        ("https://api.example/..", "https://api.example/"),
        ("https://api.example/../../a", "https://api.example/a"),
        ("https://api.example/a/..", "https://api.example/"),
        ("https://api.example/a/b/.", "https://api.example/a/b/"),
        ("https://api.example/a/b/..", "https://api.example/a/"),
        ("https://api.example//a//b", "https://api.example//a//b"),
        ("https://api.example/a//../b", "https://api.example/a/b"),
        ("https://api.example/.well-known/...", "https://api.example/.well-known/..."),
        ("https://api.example/100%", "https://api.example/100%25"),
        ("https://api.example/%zz", "https://api.example/%25zz"),
        ("https://api.example/%%34%31", "https://api.example/%2541"),
        ("https://api%2Eexample/a", "https://api.example/a"),
        ("https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/", "https://xn--bcher-kva.example/"),
        ("https://B\N{LATIN CAPITAL LETTER U WITH DIAERESIS}CHER.example/", "https://xn--bcher-kva.example/"),
        ("https://b%C3%BCcher.example/", "https://xn--bcher-kva.example/"),
        ("https://XN--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:8000/a"),
        ("http://[::1]:8000/a", "http://[::1]:8000/a"),
        ("http://[0:0:0:0:0:0:0:1]:80/a", "http://[::1]/a"),
        ("http://[2001:DB8::A]/a", "http://[2001:db8::a]/a"),
        ("http://my_service:8080/a", "http://my_service:8080/a"),
        ("https://api.example./a", "https://api.example./a"),
        ("ws://api.example:80/a", "http://api.example/a"),
        ("wss://api.example/a", "https://api.example/a"),
        ("WSS://api.example:443/a", "https://api.example/a"),
    ],
)
def test_a_url_has_one_spelling(url: str, wanted: str) -> None:
    assert normalised(url) == wanted
    assert normalised(wanted) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a",
        "//api.example/a",
        "api.example/a",
        "https:/api.example/a",
        "https:api.example",
        "https://",
        "https:///a",
        "https://:443/a",
        "https://?a",
        "ftp://api.example/a",
        "javascript://api.example/%0aalert(1)",
        "urn:a:b",
        " https://api.example/",
        "https://user@api.example/a",
        "https://user:password@api.example/a",
        "https://@api.example/a",
        "https://api.example:443@attacker.example/",
        "https://api.example:99999/a",
        "https://api.example:0/a",
        "https://api.example:port/a",
        "https://api.example:-1/a",
        "https://api.example:1:2/a",
        "https://api.example:\N{ARABIC-INDIC DIGIT FOUR}43/a",
        "https://api.example\\@attacker.example/a",
        "https://api example/a",
        "https://api.example%2Fa/",
        "https://api.example%40attacker.example/",
        "https://api.example%/",
        "https://api.example%FF/",
        "https://[::1/a",
        "https://::1/a",
        "https://[fe80::1%25eth0]/a",
        "https://[v1.a]/a",
        "https://[api.example]/a",
        "https://api.example/a\nb",
        "https://api.example/a\tb",
        "https://api.example/a\0b",
        "https://api.example/\x7f",
        "https://api.example/\N{RIGHT-TO-LEFT OVERRIDE}b",
        "https://\N{LATIN SMALL LETTER U WITH DIAERESIS}" + "a" * 300 + ".example/",
        "https://\N{SNOWMAN}\N{ZERO WIDTH JOINER}/",
        "https://\N{CARE OF}.example/",
    ],
)
def test_what_is_no_url_of_a_server_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - any
        normalised(url)
    assert "password" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example/a/",
        "https://api.example/A",
        "http://api.example/a",
        "https://api.example:8443/a",
        "https://api.example.attacker.example/a",
        "https://other.example/a",
        "https://api.example/a%2F",
        "https://api.example/a/b",
        "https://api.example/a;b",
        "https://api.example/%61%3F",
        "https://api.example/",
        "https://api.example//a",
    ],
)
def test_another_url_is_another(url: str) -> None:
    assert normalised(url) != normalised("https://api.example/a")


def test_a_host_that_is_too_long_is_refused_before_its_letters_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(idna, "encode", lambda host, **_: asked.append(host))
    with pytest.raises(ValueError, match="host"):
        normalised("https://" + "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 254 + "/")
    assert asked == []


# Properties

SEGMENT = st.text(
    alphabet=string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@ |%\N{LATIN SMALL LETTER U WITH DIAERESIS}",
    max_size=6,
)
PATH = st.lists(SEGMENT | st.sampled_from([".", "..", "%2e", "%2E%2e", "%2F", "%", "%4", ""]), max_size=5).map(
    lambda segments: "".join(f"/{segment}" for segment in segments)
)
HOST = st.sampled_from(
    [
        "api.example",
        "API.example",
        "127.0.0.1",
        "[::1]",
        "[0::0001]",
        "xn--bcher-kva.example",
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
        "a_b",
    ]
)
PORT = st.sampled_from(["", ":", ":80", ":443", ":8080", ":00443"])
URL = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}{path}",
    st.sampled_from(["http", "https", "ws", "wss", "HTTPS"]),
    HOST,
    PORT,
    PATH,
)


@given(URL)
@example("https://api.example/%%34%31")
@IN_ITS_OWN_TIME
def test_what_is_normalised_does_not_change_when_it_is_normalised_again(url: str) -> None:
    once = normalised(url)
    assert normalised(once) == once
    assert once.isascii()


@given(
    st.text(max_size=60)
    | st.tuples(st.sampled_from(["https://", "http://a/", "wss://b"]), st.text(max_size=40)).map("".join)
)
@IN_ITS_OWN_TIME
def test_every_text_is_normalised_or_refused(text: str) -> None:
    try:
        once = normalised(text)
    except ValueError:
        return
    assert normalised(once) == once


@given(URL, st.data())
@IN_ITS_OWN_TIME
def test_every_other_spelling_of_a_url_is_equal(url: str, data: st.DataObject) -> None:
    base = normalised(url)
    scheme, _, rest = base.partition("://")
    authority, slash, path = rest.partition("/")
    cased = data.draw(st.sampled_from([scheme.upper(), scheme, {"http": "ws", "https": "wss"}[scheme]]))
    host = data.draw(st.sampled_from([authority.upper(), authority]))
    if not authority.rpartition("]")[2].count(":"):
        host += data.draw(st.sampled_from(["", ":", ":80" if scheme == "http" else ":443"]))
    escaped = "".join(
        f"%{ord(letter):02x}"
        if letter.isalnum() and path[max(0, at - 2) : at].count("%") == 0 and data.draw(st.booleans())
        else letter
        for at, letter in enumerate(path)
    )
    dots = data.draw(st.sampled_from(["", "./", "x/../", "%2e/", "../"]))
    tail = data.draw(st.sampled_from(["", "?", "?a=b/../c", "#", "#a?b"]))
    assert normalised(f"{cased}://{host}{slash}{dots}{escaped}{tail}") == base


@given(PATH)
@IN_ITS_OWN_TIME
def test_a_url_as_httpx_sends_it_is_equal_to_the_url_that_was_written(path: str) -> None:
    if "%" in path.replace("%2", "") or "/." in path or "%2e" in path.lower() or "%2F" in path:
        return  # httpx resolves dots of its own, and reads a lone % in its own way
    url = f"https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example{path}"
    sent = httpx.Request("GET", url).url
    assert normalised(str(sent)) == normalised(url)
    assert normalised(f"https://xn--bcher-kva.example{sent.raw_path.decode('ascii')}") == normalised(url)
