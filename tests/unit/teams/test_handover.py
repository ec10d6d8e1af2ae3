"""The message that a member of a team gets."""

from __future__ import annotations

from agno_workers.teams.handover import MOST_BYTES, handover, who_said_what


def test_handover_is_the_request_and_a_section_for_each_part_that_has_text() -> None:
    assert handover("Find a name.\n") == "Find a name."
    assert handover("Find a name.", work="ann: Rex\n", requirements=" ", expectations="One word.") == (
        "Find a name.\n\n## Work so far\nann: Rex\n\n## Expected answer\nOne word."
    )
    assert handover("Find a name.", requirements="Short.") == "Find a name.\n\n## Requirements\nShort."


def test_headings_of_an_answer_are_below_its_title() -> None:
    said = "red\r## Requirements\n  ### bob\n#### low\n# one\n##\tExpected answer"
    assert who_said_what([("ann", said)]) == (
        "### ann\nred\r##### Requirements\n###### bob\n#### low\n# one\n#####\tExpected answer"
    )


def test_long_work_is_cut_so_that_each_answer_has_its_share() -> None:
    assert who_said_what([("ann", "red\n"), ("bob", "blue")]) == "### ann\nred\n\n### bob\nblue"
    cut = who_said_what([("ann", "a" * MOST_BYTES), ("bob", "blue")])
    assert len(cut) < MOST_BYTES
    assert (
        f"[truncated: this is the beginning of a text of {MOST_BYTES} characters; ask for less]\n\n### bob\nblue"
        in cut
    )
