"""Prints the oldest version that pyproject.toml allows of each dependency, as pip constraints.

Usage: ``python .ci/floors.py > floors.txt``; ``.ci/test-floors`` installs and tests with them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Extras that users install; ``test`` and ``bench`` are the project's own tools.
EXTRAS = ("sandbox", "cli", "proxy", "pins", "keystore", "flask")
FLOOR = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<version>[0-9.]+)")


def main() -> None:
    """One line for each requirement that has a floor; a requirement without one is an error."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in EXTRAS:
        requirements += project["optional-dependencies"][extra]
    for requirement in requirements:
        if requirement.startswith(f"{project['name']}["):
            continue
        found = FLOOR.match(requirement)
        if found is None:
            sys.exit(f"{requirement}: no floor (>=)")
        print(f"{found['name']}=={found['version']}")


if __name__ == "__main__":
    main()
