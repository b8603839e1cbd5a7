#!/usr/bin/env python3
"""Latent WebUI. `python3 app.py` makes .venv beside this file on its first run, installs, and starts the page.

This file has to parse on any Python, so that an old one gets a sentence and not a syntax error. The work is in
`webui/launcher.py`; like this file, it needs nothing but the standard library.
"""

import os
import sys

if __name__ == "__main__":
    if sys.version_info < (3, 10):
        names = ("python3.13", "python3.12", "python3.11", "python3.10")
        folders = os.environ.get("PATH", "").split(os.pathsep)
        there = [name for name in names if any(os.path.exists(os.path.join(folder, name)) for folder in folders)]
        sys.exit(
            "Latent WebUI needs Python 3.10 to 3.13, and this is Python {0}.{1}. {2}".format(
                sys.version_info[0],
                sys.version_info[1],
                "There is another one here: run {0} app.py.".format(there[0])
                if there
                else "Install Python 3.13 and run it again.",
            )
        )

    from webui.launcher import main

    sys.exit(main(sys.argv[1:]))
