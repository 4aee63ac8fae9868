"""Ray job: `ray job submit --working-dir . -- python jobs/verify.py DIR`."""

import sys

from sentray.cli import main

main(["verify", *sys.argv[1:]])
