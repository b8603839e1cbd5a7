"""The properties of `properties` under atheris (libFuzzer), for as long as one likes; not run by the suite.

pip install atheris
python tests/fuzz/atheris_targets.py header -max_total_time=600
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["webui"]):
        from properties import PROPERTIES

    if len(sys.argv) < 2 or sys.argv[1] not in PROPERTIES:
        sys.exit(f"Name one of: {', '.join(PROPERTIES)}")
    target = PROPERTIES[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
