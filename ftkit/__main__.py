"""Make ``python -m ftkit`` the same as ``ftkit``."""

import sys

from ftkit.cli.main import main

sys.exit(main())
