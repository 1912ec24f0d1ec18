"""`python -m monitoring [DEPLOY_FOLDER]` writes the Prometheus and Grafana files; the default folder is ./deploy."""

import sys
from pathlib import Path

from monitoring.provisioning import write


def main(arguments: list[str]) -> None:
    """Write the files and name them."""
    for path in write(Path(arguments[0] if arguments else "deploy")):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
