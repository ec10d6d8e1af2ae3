"""A wrong address of a server is refused in one sentence that shows no piece of it."""

from __future__ import annotations

import os

import pytest

from agno_workers import Client
from agno_workers.addresses import redis_fault
from agno_workers.errors import InvalidInput, SettingsError
from agno_workers.settings import load


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AGNO_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://host", "redis://host:6379", "redis://host:6379/", "redis://host:6379/15", "rediss://host/0",
        "redis://:pa%23ss@host:6379/0", "redis://user:pa%2Fss%40@host:6379/0", "redis://:pa@ss@host/0", "redis://:pa%ss@host/0",
        "redis://[::1]:6379/0", "rediss://host:6379/0?ssl_cert_reqs=required",
        "redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=3", "redis+socket://:secret@/run/redis.sock",
    ],
)  # fmt: skip
def test_an_address_of_redis_is_accepted(url: str) -> None:
    assert redis_fault(url) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:sec#ret@host:6379/0", "percent-encode"),
        ("redis://:sec/ret@host:6379/0", "percent-encode"),
        ("redis://:sec?ret@host:6379/0", "percent-encode"),
        ("redis://:sec[ret@host:6379/0", "percent-encode"),
        ("redis://:sec;ret@host:6379/0", "percent-encode"),
        ("redis://user:sec@x/ret@host:6379/0", "percent-encode"),
        ("redis://:4711#ret@host:6379/0", "percent-encode"),
        ("redis://:4711/ret@host:6379/0", "percent-encode"),
        ("redis://:4711?ret@host:6379/0", "percent-encode"),
        ("redis+socket://:sec#ret@/run/redis.sock", "percent-encode"),
        ("redis://host:6379/0#secret", "percent-encode"),
        ("redis://host:4711471/0", "host or port"),
        ("redis://host:secret/0", "host or port"),
        (" redis://:secret@host:6379/0", "blank"),
        ("redis://:sec ret@host:6379/0", "blank"),
        ("redis://:secret@host:6379/0\n", "blank"),
        ("redis://host:6379/secret", "number of a database"),
        ("redis://host:6379/0?password=secret", "before the host"),
        ("http://:secret@host", "must begin with redis://"),
        ("sentinel://:secret@host:26379/0", "must begin with redis://"),
        ("amqp://guest:secret@host//", "must begin with redis://"),
        ("unix:///run/secret.sock", "must begin with redis://"),
        ("secret", "must begin with redis://"),
        (":secret@host:6379/0", "must begin with redis://"),
        ('"redis://:secret@host:6379/0"', "must begin with redis://"),
        ("redis://:change-me@secret:6379/0", "as in an example"),
    ],
)
def test_a_wrong_address_of_redis_is_refused_and_not_shown(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGNO_BROKER_URL", url)
    with pytest.raises(SettingsError, match=told) as refused:
        load()
    assert "Correct AGNO_BROKER_URL in the environment" in str(refused.value)
    refusals = [str(refused.value)]
    if not url.startswith("unix"):
        with pytest.raises(InvalidInput, match=told) as given:
            Client("postgresql:///x", url)
        refusals.append(str(given.value))
    for text in refusals:
        assert not [piece for piece in ("secret", "sec#", "ret@", "4711", "sec ") if piece in text]


@pytest.mark.parametrize("url", ["postgresql://agno:change-me@host/agno", "host=db password=change-me"])
def test_the_password_of_an_example_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGNO_DATABASE_URL", url)
    with pytest.raises(SettingsError, match="as in an example"):
        load()
