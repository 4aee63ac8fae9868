"""Computing scores: engines, and the scorer that encodes texts and asks one."""
