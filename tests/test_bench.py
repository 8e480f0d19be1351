"""The benchmarks keep what is written by hand beside their figures."""

from bench.__main__ import HERE, renewed

TABLE = ["| figure | ours | beside it, same run | ratio |", "|---|---|---|---|", "| one | 1 ms |  |  |"]


def test_a_new_table_leaves_the_sections_that_are_written_by_hand() -> None:
    results = (HERE / "RESULTS.md").read_text()
    once = renewed(results, TABLE)
    assert "\n".join(TABLE) in once
    assert "| change -> subscriber, durable, p50 |" not in once
    assert once[once.index("\n## ") :] == results[results.index("\n## ") :]
    assert renewed(once, TABLE) == once


def test_the_first_table_needs_nothing_beside_it() -> None:
    assert renewed("", TABLE).endswith("| one | 1 ms |  |  |\n")
