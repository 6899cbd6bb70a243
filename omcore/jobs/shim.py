"""Start of a pod's PID 1: run as a script by `python -I -S`, with nothing of omcore or site-packages imported.

It only gives the modules beside it a package to live in; scripts are compiled on every start, modules are cached.
"""

import os
import sys


def main() -> None:
    """Import the pod's main loop from the files beside this one and run it."""
    package = type(sys)("ompod")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["ompod"] = package
    __import__("ompod.podmain", fromlist=["main"]).main()


if __name__ == "__main__":
    main()
