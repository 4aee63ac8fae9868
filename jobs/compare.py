"""Ray job: `ray job submit --working-dir . -- python jobs/compare.py A B CORPUS`."""

import sys

from sentray.cli import main

main(["compare", *sys.argv[1:]])
