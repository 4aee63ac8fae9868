"""Ray job: `ray job submit --working-dir . -- python jobs/score.py BUNDLE INPUT --out DIR`."""

import sys

from sentray.cli import main

main(["score", *sys.argv[1:]])
