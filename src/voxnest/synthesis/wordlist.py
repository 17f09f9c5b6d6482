"""Sentences for synthetic voices: a small vocabulary with the sounds of English, and templates."""

import numpy as np


def _words(text: str, separator: str | None = None) -> list[str]:
    return [word.strip() for word in text.split(separator)]


_ADJECTIVES = _words("""
    amber ancient bitter brave broken careful clever cloudy crooked dusty eager early faithful foreign
    gentle golden heavy hidden hollow humble jealous joyful loyal lucky mighty narrow nervous noisy
    patient purple quiet rapid rusty savage shallow silent silver sleepy smooth stubborn thirsty tiny
    velvet weary yellow young
""")

_NOUNS = _words("""
    actor baker bridge camera captain carpenter castle cousin dancer doctor dragon engine farmer forest
    garden giant guitar harbour island judge kettle kitchen ladder lantern lawyer letter machine merchant
    mirror mountain neighbour painter palace picture pilot pirate poet quarry river robot sailor shepherd
    singer soldier station teacher thief treasure umbrella uncle valley village violin window wizard
    zebra
""")

_VERBS = _words("""
    admired answered borrowed carried chased collected counted covered delivered described discovered
    examined followed forgave guarded imagined joined measured noticed observed painted pushed questioned
    remembered repaired rescued searched studied thanked touched visited watched welcomed
""")

_ENDINGS = _words(
    """above the chimney, across the ocean, after breakfast, against all advice, along the railway,
    around the corner, before sunrise, behind the theatre, beneath the stairs, beside the furnace,
    between two oak trees, by the lighthouse, during the storm, for seven days, in the middle of the night,
    near the old church, on Thursday evening, over the hills, through thick fog, towards the junction,
    under a pale moon, without any reason, with great pleasure""",
    ",",
)

_OPENINGS = _words("perhaps,last year,they say that,everybody knows,once more,strangely enough,in the end", ",")


def sentence(rng: np.random.Generator) -> str:
    """Draw one sentence of nine to twelve words, about three seconds of speech."""
    first, second = rng.choice(_NOUNS, 2, replace=False)
    one, two = rng.choice(_ADJECTIVES, 2, replace=False)
    subject = f"the {one} {first}" if rng.random() < 0.5 else f"{rng.choice(_OPENINGS)} the {first}"
    return f"{subject} {rng.choice(_VERBS)} the {two} {second} {rng.choice(_ENDINGS)}.".capitalize()
