"""The troubleshooting page shows what the code says today, and each bad input is met by words."""

from __future__ import annotations

import json

import pytest
from benchmarks.reliability import bad_inputs


@pytest.mark.parametrize("name", bad_inputs.INPUTS)
def test_the_page_shows_the_messages_of_today(name):
    found = bad_inputs.messages(bad_inputs.INPUTS[name])
    assert found
    kept = json.loads(bad_inputs.OUT.read_text())
    assert found == kept[name], "run python -m benchmarks.reliability.bad_inputs"
    page = bad_inputs.PAGE.read_text()
    assert bad_inputs.fill(page, kept) == page
    assert f"message: {name} -->" in page
