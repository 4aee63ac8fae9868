"""Ray job: `ray job submit --working-dir . -- python jobs/reproduce.py --seeds 5 --glove FILE`."""

import sys

from sentray.cli import main

main(["reproduce", *sys.argv[1:]])
