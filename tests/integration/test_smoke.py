from tests.agents import caller, echo


def test_a_run_comes_back(worker, app):
    assert echo.delay("hi").get(timeout=20) == "<hi>"


def test_tools(worker, app):
    assert caller.delay('add {"a": 1, "b": 2}\nboom {"text": "no"}').get(timeout=20) == "3 | !no"
