from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.messages import ToolSpec
from agno_workers.core.tool import Tool, ToolContext
from agno_workers.errors import InvalidTool
from agno_workers.tools import Toolkit, collect, execute, tool


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def double(a: int) -> int:
    """Double."""
    return 2 * a


def other_add(a: int) -> int:
    """Add otherwise."""
    return a


class Counting(Toolkit):
    def __init__(self, start: int = 0, **options: Any) -> None:
        super().__init__("counting", **options)
        self.start = start

    @tool
    def up(self, n: int) -> int:
        """Count up."""
        self.start += n
        return self.start

    @tool(name="zero")
    def reset(self) -> None:
        """Back to zero."""
        self.start = 0

    @staticmethod
    @tool
    def sign(n: int) -> int:
        """Tell the sign."""
        return (n > 0) - (n < 0)

    @tool
    def _hidden(self) -> None:
        """Not public."""

    def unmarked(self, n: int) -> int:
        """Not a tool."""
        return n


class CountingOn(Counting):
    @tool
    def up(self, n: int) -> int:
        """Count up twice as fast."""
        self.start += 2 * n
        return self.start

    reset = None  # type: ignore[assignment]


class Careless(Toolkit):
    """Never calls super().__init__, and needs something."""

    def __init__(self, needed: int) -> None:
        self.needed = needed

    @tool
    def show(self) -> int:
        """Show."""
        return self.needed


def test_toolkit_has_the_functions_that_were_passed() -> None:
    maths = Toolkit("maths", [add, tool(double)])

    assert list(maths.tools()) == ["add", "double"]
    assert maths.name == "maths"


def test_the_marked_public_methods_of_a_subclass_are_its_tools() -> None:
    assert list(Counting().tools()) == ["up", "zero", "sign"]


def test_a_method_works_on_its_own_instance(ctx: ToolContext) -> None:
    counting = Counting(10)

    assert execute(collect([counting])["up"], "up", '{"n": 5}', ctx).content == "15"
    assert counting.start == 15
    assert execute(collect([counting])["sign"], "sign", '{"n": -5}', ctx).content == "-1"


def test_a_subclass_replaces_and_removes_the_tools_of_its_base() -> None:
    tools = CountingOn().tools()

    assert list(tools) == ["up", "sign"]
    assert tools["up"].spec.description == "Count up twice as fast."


def test_methods_and_passed_functions_are_both_tools() -> None:
    assert list(Counting(tools=[add]).tools()) == ["up", "zero", "sign", "add"]


def test_a_subclass_need_not_call_its_base(ctx: ToolContext) -> None:
    assert execute(collect([Careless(3)])["show"], "show", "", ctx).content == "3"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"include": ["up"]}, ["up"]),
        ({"include": []}, []),
        ({"exclude": ["up"]}, ["zero", "sign"]),
        ({"include": ["up", "zero"], "exclude": ["up"]}, ["zero"]),
    ],
)
def test_tools_are_selected_by_name(options: dict[str, Any], names: list[str]) -> None:
    assert list(Counting(**options).tools()) == names


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_selecting_an_unknown_tool_is_an_error_when_the_toolkit_is_made(option: str) -> None:
    with pytest.raises(
        InvalidTool, match=r"Counting\('counting'\) has no tool reset .* it has sign, up, zero"
    ):
        Counting(0, **{option: ["reset"]})


def test_collect_flattens_tools_in_order() -> None:
    found = collect([add, [tool(double), (Counting(),)], Toolkit("more", [other_add])])

    assert list(found) == ["add", "double", "up", "zero", "sign", "other_add"]
    assert all(isinstance(each, Tool) for each in found.values())


def test_collect_instantiates_a_class_without_arguments() -> None:
    assert list(collect([Counting])) == ["up", "zero", "sign"]


def test_collect_takes_tools_built_by_hand() -> None:
    remote = Tool(spec=ToolSpec("remote", "d", {}), function=print)

    assert collect([remote]) == {"remote": remote}


def test_the_same_function_twice_is_one_tool() -> None:
    counting = Counting()

    assert list(collect([add, tool(add), counting, counting])) == ["add", "up", "zero", "sign"]


def test_two_functions_of_one_name_are_refused_and_named() -> None:
    with pytest.raises(InvalidTool) as refused:
        collect([add, tool(name="add")(other_add)])

    assert "'add'" in str(refused.value)
    assert f"{__name__}.add and " in str(refused.value)
    assert f"{__name__}.other_add" in str(refused.value)


def test_same_method_of_two_instances_is_refused_and_both_are_named() -> None:
    class Named(Counting):
        def __repr__(self) -> str:
            return f"counting from {self.start}"

    with pytest.raises(InvalidTool, match=r"up of counting from 1 and .*up of counting from 2"):
        collect([Named(1), Named(2)])


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("add", "'add' is not a tool"),
        (5, "5 is not a tool"),
        (None, "None is not a tool"),
        ({"add": add}, "is not a tool"),
        (dict, "not a function"),
        (Careless, "Careless cannot be built without arguments"),
        (Counting.up, "pass an instance of its toolkit"),
        (lambda: 1, "lambda"),
    ],
)
def test_what_is_no_tool_is_refused(item: Any, said: str) -> None:
    with pytest.raises(InvalidTool, match=said):
        collect([item])
