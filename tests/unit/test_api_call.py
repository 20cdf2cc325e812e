"""Answers as JSON: compact, and whole whatever a label or a file is called."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from engine.api.call import encoded


@pytest.mark.parametrize(
    "value",
    [{"a": [1, None, True, "포트"]}, {"half": "\ud800x"}, {"long": 2**70}, {80: "a number's key"}],
)
def test_as_json_says_it(value: object) -> None:
    assert json.loads(encoded(value)) == json.loads(json.dumps(value))
    assert b" " not in encoded({"a": [1, 2], "b": {}})


@pytest.mark.parametrize("value", [b"bytes", datetime(2026, 11, 24, tzinfo=UTC), {1, 2}])
def test_what_is_no_json_is_an_error(value: object) -> None:
    with pytest.raises(TypeError):
        encoded(value)
