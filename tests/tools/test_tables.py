"""README and docs say what the code says, where a table does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import tables


def test_the_tables_are_what_the_code_gives() -> None:
    assert tables.main([]) == 0, "python tools/tables.py --write"


def test_a_stale_table_is_named_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "README.md"
    page.write_text("# Title\n\n<!-- systems -->\nold\n<!-- /systems -->\n\nThe end.\n")
    assert tables.main([], tmp_path) == 1
    assert capsys.readouterr().err.startswith("tables: README.md does not say")
    assert "old" in page.read_text()
    assert tables.main(["--write"], tmp_path) == 0
    assert tables.main([], tmp_path) == 0
    text = page.read_text()
    assert "| `dfc_vae`, `vae_wgan` | " in text
    assert text.startswith("# Title\n\n<!-- systems -->\n| ")
    assert text.endswith(" |\n<!-- /systems -->\n\nThe end.\n")
