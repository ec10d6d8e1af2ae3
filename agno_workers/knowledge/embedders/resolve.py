"""Resolve a name to its Embedder.

    local                                    MiniLM on this machine, no key: `local:all-minilm-l6-v2`
    openai:text-embedding-3-small[@512]      an embedding model of OpenAI; shortened to 512 dimensions
    compatible:MODEL[@768]                   a server that speaks OpenAI's embeddings, at AGNO_MODELS__LOCAL_BASE_URL
    compatible:http://HOST:PORT/v1#MODEL[@768]    the same, elsewhere; without @DIMENSIONS the first call finds them out
    hash:384                                 words hashed to numbers: for tests and benchmarks

To add one: write a file beside this one, add a line to `PROVIDERS`, and run the contract suite.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from urllib.parse import urlsplit

from agno_workers.core.ports import Embedder
from agno_workers.errors import InvalidInput
from agno_workers.models.access import missing, once, unusable, variable

LOCAL = "all-minilm-l6-v2"
OPENAI = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""The dimensions of each model. All but the last can shorten their vectors."""
EXAMPLES = (
    "local",
    f"local:{LOCAL}",
    *(f"openai:{model}" for model in OPENAI),
    "compatible:http://localhost:11434/v1#nomic-embed-text",
    "hash:384",
)
MAX_DIMENSIONS = 4096


def resolve(name: str) -> Embedder:
    """Return the embedder of that name. The same name in the same environment returns the same object, which any number of
    threads may share, also after a fork.

    Raises InvalidInput for a name that is not an embedder's, and ModelRejected when the key, the address or the package
    that it needs is missing; the message names what to set or to install.
    """
    name, provider, model = parsed(name)
    return PROVIDERS[provider](name, model)


def whole(name: str) -> str:
    """Return the name that an embedder has in Postgres."""
    return f"local:{LOCAL}" if name == "local" else name


def parsed(name: str) -> tuple[str, str, str]:
    """Return the whole name, its provider and its model. Raises InvalidInput for a name that is not an embedder's."""
    name = whole(name)
    provider, colon, model = name.partition(":")
    if provider not in PROVIDERS or not colon or not model:
        raise _unknown(name)
    return name, provider, model


def _local(name: str, model: str) -> Embedder:
    if model != LOCAL:
        raise _unknown(name)
    try:
        from agno_workers.knowledge.embedders.local import Local  # noqa: PLC0415 - onnxruntime takes 40 MB
    except ImportError as error:
        why = f"{error.name} is not installed. pip install 'agno-workers[knowledge]'."
        raise unusable(name, why) from error
    return once((name,), Local)


def _openai(name: str, model: str) -> Embedder:
    model, dimensions = _cut_off(name, model)
    if model not in OPENAI or (dimensions or 0) > OPENAI[model] or (dimensions and model.endswith("ada-002")):
        raise _unknown(name)
    key, url = variable("OPENAI_API_KEY"), variable("OPENAI_BASE_URL") or None
    if not key:
        raise missing(name, "OPENAI_API_KEY", "or use local")
    from agno_workers.knowledge.embedders.batches import OpenAI  # noqa: PLC0415 - numpy

    return once(
        (name, key, url),
        lambda: OpenAI(
            name,
            model,
            api_key=key,
            base_url=url,
            dimensions=dimensions or OPENAI[model],
            shortened=dimensions is not None,
        ),
    )


def _compatible(name: str, model: str) -> Embedder:
    """The key goes only to the address that it was set with."""
    model, dimensions = _cut_off(name, model)
    given, hash_sign, model = model.rpartition("#")
    ours = variable("AGNO_MODELS__LOCAL_BASE_URL")
    url = given if hash_sign else ours
    if not url:
        raise missing(name, "AGNO_MODELS__LOCAL_BASE_URL", "or write compatible:http://host:port/v1#model")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not model:
        raise InvalidInput(
            f"{name!r} is not an embedder's name: write compatible:http://host:port/v1#model, without a user or a password in it.",
            model=name,
        )
    key = (url == ours and variable("AGNO_LOCAL_API_KEY")) or "none"
    from agno_workers.knowledge.embedders.openai import Embeddings  # noqa: PLC0415 - numpy

    return once(
        (name, key, url),
        lambda: Embeddings(name, model, api_key=key, base_url=url, dimensions=dimensions),
    )


def _hash(name: str, model: str) -> Embedder:
    from agno_workers.knowledge.embedders.hash import Hash  # noqa: PLC0415 - numpy

    dimensions = _dimensions(name, model)
    return once((name,), lambda: Hash(dimensions))


PROVIDERS: dict[str, Callable[[str, str], Embedder]] = {
    "local": _local,
    "openai": _openai,
    "compatible": _compatible,
    "hash": _hash,
}
"""Each takes the whole name, and its part after `provider:`."""


def _cut_off(name: str, model: str) -> tuple[str, int | None]:
    """Split `text-embedding-3-small@512` into the model and its dimensions."""
    front, at, number = model.rpartition("@")
    return (front, _dimensions(name, number)) if at and "#" not in number else (model, None)


def _dimensions(name: str, number: str) -> int:
    if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MAX_DIMENSIONS:
        raise InvalidInput(
            f"{name!r}: {number!r} is not a number of dimensions from 1 to {MAX_DIMENSIONS}. Correct it.",
            model=name,
        )
    return int(number)


def _unknown(name: str) -> InvalidInput:
    nearest = difflib.get_close_matches(name, EXAMPLES, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"Known are {', '.join(EXAMPLES)}."
    return InvalidInput(f"{name!r} is not an embedder's name. {hint}", model=name)
