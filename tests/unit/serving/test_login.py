"""The login for demonstrations: whom it signs in, for how long, and which pages it does not hear."""

from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from infra.access import Access
from infra.embedded import make_login_key
from infra.key_file import KeyFile, KeysError
from infra.keys import Keys
from infra.tokens import Tokens
from serving.login import LIFETIME, DemoLogin, install_login
from tests.unit.serving.conftest import Serving

HERE = "127.0.0.1:8000"


def access_for(public: Path) -> Access:
    return Access(Keys(KeyFile(public.with_name("none")), "key"), Tokens(public, "marquee", "", None))


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """The file that checks what the login signs."""
    return make_login_key(tmp_path / "login.pem")


@pytest.fixture
def signing(serving: Serving, public: Path) -> Serving:
    """Serving with the login."""
    login = DemoLogin(public.with_name("login.pem"), "marquee", "")
    install_login(serving.app, login, access_for(public), "127.0.0.1", 8000)
    return serving


def sign_in(serving: Serving, user_id: Any, **headers: str) -> httpx.Response:
    sent = {name: value for name, value in {"host": HERE, **headers}.items() if value}
    [answer] = serving.all(["/login"], "POST", headers=sent, json={"user_id": user_id})
    return answer


def test_whoever_asks_gets_a_short_lived_token_of_that_person_and_no_other(signing: Serving, public: Path) -> None:
    answer = sign_in(signing, "ann/é", origin=f"http://{HERE}").json()
    claims = jwt.decode(answer["token"], public.read_bytes(), ["EdDSA"], audience="marquee")
    assert (answer["user_id"], claims["sub"], answer["seconds"]) == ("ann/é", "ann/é", 900)
    assert claims["exp"] - claims["iat"] == LIFETIME.total_seconds()
    bearer = [(b"authorization", b"Bearer " + answer["token"].encode())]
    caller = access_for(public).caller(bearer)
    assert (caller.user_id, caller.scopes) == ("ann/é", frozenset())


@pytest.mark.parametrize("user_id", ["", "x" * 129, "a\nb", 7, None])
def test_who_says_no_id_is_nobody(signing: Serving, user_id: Any) -> None:
    answer = sign_in(signing, user_id)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example:8000", "origin": "http://rebound.example:8000"},
        {"host": "rebound.example:8000"},
        {"host": "127.0.0.1:8001"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:8000"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "null"},
        {"host": f"{HERE}.evil.example", "origin": f"http://{HERE}.evil.example"},
    ],
    ids=lambda headers: " from ".join(headers.values()),
)
def test_no_page_of_another_site_is_heard(signing: Serving, headers: dict[str, str]) -> None:
    """Whether it names itself, or has made its own name point here."""
    answer = sign_in(signing, "ann", **headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_page")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_our_own_pages_are_heard_by_every_name_of_this_machine(signing: Serving, host: str) -> None:
    assert sign_in(signing, "ann", host=host, origin=f"http://{host}").status_code == 200


def test_it_is_not_there_unless_it_is_wanted(serving: Serving) -> None:
    assert sign_in(serving, "ann").status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "tv.example.org", ""])
def test_it_does_not_start_where_other_machines_reach_it(serving: Serving, public: Path, host: str) -> None:
    login = DemoLogin(public.with_name("login.pem"), "marquee", "")
    with pytest.raises(KeysError, match=r"only on 127\.0\.0\.1"):
        install_login(serving.app, login, access_for(public), host, 8000)


def test_it_does_not_start_where_its_tokens_open_nothing(serving: Serving, public: Path, tmp_path: Path) -> None:
    other = make_login_key(tmp_path / "other.pem")
    login = DemoLogin(public.with_name("login.pem"), "marquee", "")
    with pytest.raises(KeysError, match="does not check"):
        install_login(serving.app, login, access_for(other), "127.0.0.1", 8000)


def test_it_does_not_start_without_its_key(tmp_path: Path, public: Path) -> None:
    for none in (tmp_path / "nothing.pem", public):
        with pytest.raises(KeysError, match="no private key"):
            DemoLogin(none, "marquee", "")
