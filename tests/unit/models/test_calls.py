"""Tool calls of chat completions, cut into pieces in all the ways in which servers do it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.models.calls import Calls

objects = st.dictionaries(
    st.sampled_from("ab"), st.integers() | st.text(max_size=8) | st.dictionaries(st.just("c"), st.booleans())
)
wanted = st.lists(st.tuples(st.sampled_from("fg"), objects.map(json.dumps)), min_size=1, max_size=4)


def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=3)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    """Draw calls, and the pieces in which a server sends them."""
    calls = draw(wanted)
    index = draw(st.sampled_from(["own", "zero", "none"]))
    id_ = draw(
        st.sampled_from(["first", "all", "new", "empty"] if index == "own" else ["first", "all", "empty"])
    )
    name = draw(st.sampled_from(["first", "all"]))
    queues = []
    for place, (tool, arguments) in enumerate(calls):
        texts = [*draw(st.sampled_from([[], [""]])), *cut(draw, arguments)]
        pieces: list[dict[str, Any]] = [{"function": {"arguments": text}} for text in texts]
        for number, piece in enumerate(pieces):
            if index != "none":
                piece["index"] = place if index == "own" else 0
            if id_ == "new":
                piece["id"] = f"call_{place}_{number}"
            elif id_ == "all" or (id_ == "first" and number == 0):
                piece["id"] = f"call_{place}"
            if name == "all" or number == 0:
                piece["function"]["name"] = tool
        queues.append(pieces)
    if index == "own" or (index == "none" and id_ == "all"):
        stream = []
        while any(queues):
            stream.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    else:
        stream = [piece for pieces in queues for piece in pieces]
    return calls, stream


@settings(max_examples=300, deadline=None)
@given(streams())
def test_calls_are_assembled_however_they_are_cut(
    drawn: tuple[list[tuple[str, str]], list[dict[str, Any]]],
) -> None:
    wanted, stream = drawn
    calls = Calls()
    for piece in stream:
        calls.add(piece)
    assert sorted((call.name, call.arguments) for call in calls.parts()) == sorted(wanted)
