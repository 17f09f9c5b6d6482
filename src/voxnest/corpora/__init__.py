"""Speech corpora: find and describe recordings, make synthetic voices, cut and augment training crops."""
