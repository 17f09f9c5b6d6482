"""`voxnest models`: what can be built by name."""


def models() -> None:
    """List the models: size and cost as built here (for 2 s of speech), error rates as published."""
    from rich.console import Console
    from rich.table import Table

    from voxnest.models.counting import count_macs, count_parameters
    from voxnest.models.registry import CARDS, create_encoder

    lists = list(dict.fromkeys(name for card in CARDS.values() for name in card.published.eer))
    table = Table(caption="Counts are of the built model, GMACs for 2 s; EERs (%) are as published.")
    table.add_column("model", no_wrap=True)
    for column in ("M params", "GMACs", *lists):
        table.add_column(column, justify="right")
    table.add_column("what it is")
    for name, card in CARDS.items():
        encoder = create_encoder(name)
        eers = (f"{card.published.eer[item]:.2f}" if item in card.published.eer else "-" for item in lists)
        counts = f"{count_parameters(encoder) / 1e6:.2f}", f"{count_macs(encoder) / 1e9:.2f}"
        table.add_row(name, *counts, *eers, card.summary)
    Console().print(table)
