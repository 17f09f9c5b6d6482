"""Speech corpora: find the recordings, describe them, list trials of them."""
