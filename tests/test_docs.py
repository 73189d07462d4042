"""The code on the documentation's pages runs, and says what it does."""

from __future__ import annotations

import re
from pathlib import Path

import torch

DOCS = Path(__file__).parents[1] / "docs"


def test_the_worked_example_of_an_extension_runs_and_learns():
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), flags=re.S)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 30
    names: dict[str, object] = {}
    exec(compile(code, "docs/extending.md", "exec"), names)
    loss = names["result"].history["huber"]
    assert loss[-1] < 0.6 * loss[0]
    # the path's velocity is its derivative
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    x0, x1 = torch.zeros(5, 2, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64)
    h, path = 1e-6, names["path"]
    ahead, back = (path.at(x0, x1, t + s, x0).x_t for s in (h, -h))
    torch.testing.assert_close(path.at(x0, x1, t, x0).u_t, (ahead - back) / (2 * h), atol=1e-6, rtol=0)
