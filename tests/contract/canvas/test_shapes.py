"""Celery's canvas over runs and plain tasks: every shape returns the results that Celery promises, in its order."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from celery import chain, chord, group

from agno_workers.errors import InvalidInput
from tests.agents import caller, echo, shouter
from tests.contract.canvas.conftest import WAIT_S, Plain, sections

# Groups.


def test_group_returns_its_results_in_order() -> None:
    assert group([echo.s(letter) for letter in "abc"])().get(timeout=WAIT_S) == ["<a>", "<b>", "<c>"]


def test_a_group_may_come_from_a_generator() -> None:
    assert group(echo.s(letter) for letter in "ab")().get(timeout=WAIT_S) == ["<a>", "<b>"]


def test_a_group_in_a_group_is_flattened(plain: Plain) -> None:
    nested = group([echo.s("a"), group([echo.s("b"), plain("upper", "c")])])
    assert sorted(nested().get(timeout=WAIT_S)) == ["<a>", "<b>", "C"]


def test_a_group_of_chains_runs_each_to_its_end(plain: Plain) -> None:
    chains = group([echo.s("a") | shouter.s(), plain("upper", "b") | echo.s()])
    assert chains().get(timeout=WAIT_S) == ["<A>", "<B>"]


def test_a_group_holds_chords(plain: Plain) -> None:
    chords = group([chord([echo.s("a"), echo.s("b")], plain("join")), chord([echo.s("c")], echo.s())])
    assert chords().get(timeout=WAIT_S) == ["<a>+<b>", sections("<c>")]


# Chains.


def test_a_chain_hands_each_result_on() -> None:
    result = chain(echo.s("a"), shouter.s(), echo.s())()
    assert result.get(timeout=WAIT_S) == "<<A>>"
    assert [result.parent.get(timeout=1), result.parent.parent.get(timeout=1)] == ["<A>", "<a>"]


def test_a_result_comes_before_the_input_of_the_next() -> None:
    assert (echo.s("a") | echo.s("Shorten this.")).delay().get(timeout=WAIT_S) == "<<a>\n\nShorten this.>"


def test_an_immutable_signature_takes_no_result(plain: Plain) -> None:
    mixed = chain(echo.s("a"), echo.si("b"), plain("add", 1, 2).set(immutable=True))
    result = mixed()
    assert [result.get(timeout=WAIT_S), result.parent.get(timeout=1)] == [3, "<b>"]


def test_plain_tasks_come_before_between_and_after_runs(plain: Plain) -> None:
    mixed = chain(plain("upper", "a"), echo.s(), plain("upper"), echo.s(), plain("upper"))
    assert mixed().get(timeout=WAIT_S) == "<<A>>"


def test_a_chain_of_groups_feeds_all_of_one_to_each_of_the_next(plain: Plain) -> None:
    result = chain(group([echo.s("a"), echo.s("b")]), group([plain("join"), echo.s()]))()
    assert result.get(timeout=WAIT_S) == ["<a>+<b>", sections("<a>", "<b>")]


def test_a_chain_of_groups_ends_in_a_task(plain: Plain) -> None:
    steps = chain(group([echo.s("a"), echo.s("b")]), group([plain("join"), plain("join")]), plain("join"))
    assert steps().get(timeout=WAIT_S) == "<a>+<b>+<a>+<b>"


def test_a_chain_with_a_chord_in_the_middle(plain: Plain) -> None:
    middle = chord([echo.s("b"), shouter.s()], plain("join"))
    assert chain(echo.s("a"), middle, echo.s())().get(timeout=WAIT_S) == "<<<a>\n\nb>+<A>>"


def test_a_chain_may_start_with_a_run_and_end_in_a_group() -> None:
    assert chain(echo.s("a"), group([echo.s(), shouter.s()]))().get(timeout=WAIT_S) == ["<<a>>", "<A>"]


# Chords.


def test_a_chord_of_runs_with_tools_hands_its_results_to_a_run() -> None:
    documents = ['add {"a": 1, "b": 2}', 'add {"a": 3, "b": 4}\nboom {"text": "no"}', 'add {"a": 5, "b": 6}']
    editor = chord([caller.s(document) for document in documents], echo.s())
    assert editor().get(timeout=WAIT_S) == sections("3", "7 | !no", "11")


def test_a_chord_of_runs_and_plain_tasks_keeps_the_order_of_its_header(plain: Plain) -> None:
    header = [plain("upper", "a"), echo.s("b"), plain("silent", "c"), caller.s('add {"a": 2, "b": 2}')]
    assert chord(header, plain("join"))().get(timeout=WAIT_S) == "A+<b>+c+4"


def test_a_chord_of_plain_tasks_ends_in_a_run(plain: Plain) -> None:
    assert chord([plain("add", n, n) for n in (1, 2)], echo.s())().get(timeout=WAIT_S) == sections("2", "4")


def test_a_chord_of_plain_tasks_needs_no_run(plain: Plain) -> None:
    assert chord([plain("add", n, n) for n in (1, 2)], plain("join"))().get(timeout=WAIT_S) == "2+4"


def test_a_chord_of_one(plain: Plain) -> None:
    assert chord([echo.s("a")], plain("join"))().get(timeout=WAIT_S) == "<a>"


def test_an_empty_chord_runs_its_body_at_once(plain: Plain) -> None:
    assert chord([], plain("join"))().get(timeout=WAIT_S) == ""
    assert chord([], echo.s("Nothing came."))().get(timeout=WAIT_S) == "<Nothing came.>"


def test_empty_chord_whose_body_has_no_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        chord([], echo.s())()


def test_a_chord_of_two_hundred(plain: Plain) -> None:
    header = [echo.s(str(n)) if n % 4 == 0 else plain("same", n) for n in range(200)]
    expected = "+".join(f"<{n}>" if n % 4 == 0 else str(n) for n in range(200))
    assert chord(header, plain("join"))().get(timeout=WAIT_S) == expected


def test_a_chord_body_is_a_chain(plain: Plain) -> None:
    result = chord([echo.s("a"), echo.s("b")], plain("join") | shouter.s() | echo.s())()
    assert result.get(timeout=WAIT_S) == "<<A>+<B>>"


def test_a_chord_body_is_a_group(plain: Plain) -> None:
    result = chord([echo.s("a"), echo.s("b")], group([plain("join"), echo.s()]))()
    assert result.get(timeout=WAIT_S) == ["<a>+<b>", sections("<a>", "<b>")]


def test_a_chord_body_is_a_chord(plain: Plain) -> None:
    inner = chord([plain("join"), echo.si("c")], plain("join"))
    assert chord([echo.s("a"), echo.s("b")], inner)().get(timeout=WAIT_S) == "<a>+<b>+<c>"


def test_chord_in_the_header_of_a_chord(plain: Plain) -> None:
    inner = chord([echo.s("a"), echo.s("b")], shouter.s())
    result = chord([inner, echo.s("c"), chord([echo.s("d")], plain("join"))], plain("join"))()
    assert result.get(timeout=WAIT_S) == "[1]\n<A>\n\n[2]\n<B>+<c>+<d>"


def test_chords_nest_three_deep(plain: Plain) -> None:
    innermost = chord([echo.s("a"), echo.s("b")], plain("join"))
    middle = chord([innermost, echo.s("c")], plain("join"))
    assert chord([middle, echo.s("d")], plain("join"))().get(timeout=WAIT_S) == "<a>+<b>+<c>+<d>"


def test_a_chain_in_a_header_counts_as_its_last_task(plain: Plain) -> None:
    header = [echo.s("a") | shouter.s(), plain("upper", "b") | echo.s(), echo.s("c") | plain("upper")]
    assert chord(header, plain("join"))().get(timeout=WAIT_S) == "<A>+<B>+<C>"


def test_a_group_at_the_end_of_a_chain_in_a_header_keeps_its_nesting(plain: Plain) -> None:
    header = [chain(echo.s("a"), group([echo.s(), plain("upper")])), echo.s("b")]
    assert chord(header, plain("join"))().get(timeout=WAIT_S) == "(<<a>>+<A>)+<b>"


def test_a_chord_with_a_group_for_a_body_keeps_its_nesting_in_a_header(plain: Plain) -> None:
    inner = chord([echo.s("a"), echo.s("b")], group([plain("join"), plain("join")]))
    assert chord([inner, echo.s("c")], plain("join"))().get(timeout=WAIT_S) == "(<a>+<b>+<a>+<b>)+<c>"


def test_a_group_piped_into_a_task_is_a_chord(plain: Plain) -> None:
    result = (group([echo.s("a"), echo.s("b")]) | plain("join") | echo.s()).delay()
    assert result.get(timeout=WAIT_S) == "<<a>+<b>>"


# Families.


def test_task_after_a_run_has_its_root_and_parent(plain: Plain) -> None:
    result = (echo.s("a") | shouter.s() | plain("family")).delay()
    assert result.get(timeout=WAIT_S) == [result.parent.parent.id, result.parent.id]


def test_the_body_of_a_chord_has_a_part_of_its_header_for_a_parent(plain: Plain) -> None:
    result = chord([echo.s("a"), echo.s("b")], plain("family"))()
    root, parent = result.get(timeout=WAIT_S)
    assert parent in {part.id for part in result.parent}
    assert root == parent


def test_a_plain_task_becomes_a_run(plain: Plain) -> None:
    assert plain("becomes_a_run", "a").delay().get(timeout=WAIT_S) == "<a>"
    assert (plain("becomes_a_run", "a") | shouter.s()).delay().get(timeout=WAIT_S) == "<A>"


def test_a_header_task_is_replaced_by_a_run_a_chain_and_a_group(plain: Plain) -> None:
    header = [plain("becomes_a_run", "a"), plain("becomes_a_chain", "b"), plain("becomes_a_group", "c", "d")]
    assert chord(header, plain("join"))().get(timeout=WAIT_S) == "<a>+<B>+(<c>+<d>)"


def test_a_run_delayed_inside_a_plain_task_is_a_run_result(
    plain: Plain, database: psycopg.Connection
) -> None:
    result = plain("delays_a_run", "a").delay()
    run_id, kind = result.get(timeout=WAIT_S)
    assert kind == "RunResult"
    assert [child.id for child in result.children] == [run_id]
    (row,) = database.execute("SELECT canvas->>'parent_id' FROM agno.run WHERE id = %s", [run_id]).fetchall()
    assert row == (result.id,)


# Links.


def test_a_link_gets_the_result_of_a_run(plain: Plain, tmp_path: Path) -> None:
    linked = plain("note", path=str(tmp_path / "notes"))
    linked_result = linked.freeze()
    assert echo.apply_async(("a",), link=linked).get(timeout=WAIT_S) == "<a>"
    assert linked_result.get(timeout=WAIT_S) == "<a>"
    assert (tmp_path / "notes").read_text() == "<a>\n"


def test_several_links_of_every_shape_are_called(plain: Plain) -> None:
    links = [
        shouter.s(),
        echo.s() | shouter.s(),
        group([plain("upper"), echo.s()]),
        chord([echo.s()], plain("join")),
    ]
    results = [link.freeze() for link in links]
    echo.apply_async(("a",), link=links)
    given = [result.get(timeout=WAIT_S) for result in results]
    assert given == ["<A>", "<<A>>", ["<A>", "<<a>>"], "<<a>>"]


def test_a_link_of_a_chain_is_called_after_its_last_task(plain: Plain) -> None:
    linked = plain("upper")
    linked_result = linked.freeze()
    (echo.s("a") | echo.s()).apply_async(link=linked)
    assert linked_result.get(timeout=WAIT_S) == "<<A>>"


def test_a_link_of_a_chord_is_called_after_its_body(plain: Plain) -> None:
    linked = shouter.s()
    linked_result = linked.freeze()
    chord([echo.s("a")], echo.s()).apply_async(link=linked)
    assert linked_result.get(timeout=WAIT_S) == sections("<A>")


def test_a_run_is_the_link_of_a_plain_task(plain: Plain) -> None:
    linked = echo.s()
    linked_result = linked.freeze()
    plain("upper", "a").apply_async(link=linked)
    assert linked_result.get(timeout=WAIT_S) == "<A>"
