"""Ray job: `ray job submit --working-dir . -- python jobs/check.py CORPUS`."""

import sys

from sentray.cli import main

main(["check", *sys.argv[1:]])
