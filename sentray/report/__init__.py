"""Pages to look at: of a bundle, of a scoring job, of a comparison; one file each, without network and scripts."""
