"""Which programs that others wrote are here: a test that needs a missing one is skipped by its name, and counted.

`@pytest.mark.peer("mosquitto")` names what brings the program: a Debian package, or `.venv-peers` for Python ones.
In CI nothing may be skipped: there a missing program is a failure.
"""

import os
import re
from collections import Counter

import pytest
from hypothesis import settings

from tests.strangers import available

# pytest-xdist tells its workers the width of somebody's terminal; the programs under test have none.
os.environ.pop("COLUMNS", None)
# Hundreds of processes start here. Without it each would compile the agent anew, which none at a site does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No test asserts a time: a slow moment of the machine is not a mistake of the code.
settings.register_profile("unhurried", deadline=None, max_examples=30)
settings.load_profile("unhurried")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peer"):
        for package in marker.args:
            if not available(package):
                if os.environ.get("CI"):
                    pytest.fail(f"{package} is not installed, and in CI nothing may be skipped", pytrace=False)
                pytest.skip(f"{package} is not installed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [re.search(r"(\S+) is not installed", str(report.longrepr)) for report in reports]
    for package, count in sorted(Counter(found[1] for found in reasons if found).items()):
        terminalreporter.write_line(f"{count} tests were skipped because {package} is missing: `make test` as root")
