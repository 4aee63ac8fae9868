"""From a bundle and reviews to scores: engines, the scorer that all verbs share, the job over shards."""
