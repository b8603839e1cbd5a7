"""`python -m webui`: the same commands as app.py, for a Python in which everything is installed already."""

import os
import sys

from webui.launcher import AT_HOME

if __name__ == "__main__":
    os.environ.update(AT_HOME)
    from webui.cli import main

    sys.exit(main())
