"""Ray job: `ray job submit --working-dir . -- python jobs/evaluate.py BUNDLE CORPUS`."""

import sys

from sentray.cli import main

main(["evaluate", *sys.argv[1:]])
