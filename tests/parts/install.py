"""Installs parts ahead of the tests: `python tests/parts/install.py [kafka] [mongo] [debian] [prometheus3]`.

Without names: everything that the tests need. As root for Debian's packages.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from parts import debian, kafka, mongo, prometheus


def main() -> None:
    for name in sys.argv[1:] or ["debian", "kafka", "mongo"]:
        if name == "kafka":
            print(kafka.install())
        elif name == "mongo":
            print(mongo.install())
        elif name == "debian":
            debian.install(*sorted(set(debian.PACKAGES.values())))
            print(*(debian.program(each) for each in debian.PACKAGES))
        elif name == "prometheus3":
            print(prometheus.install_version_3())
        else:
            sys.exit(f"no such part: {name}")


if __name__ == "__main__":
    main()
