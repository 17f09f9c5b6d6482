"""Architecture search: spaces, the supernet, deriving a genotype, drawing it. The derived network is in `models`."""
