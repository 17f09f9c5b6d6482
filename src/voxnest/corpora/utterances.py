"""Read the utterances of any folder of speech."""

import contextlib
import tempfile
from pathlib import Path

from voxnest.audio import audio_info, list_recordings
from voxnest.corpora.layouts import find_corpus
from voxnest.corpora.manifest import Utterance, is_manifest, read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.errors import AudioError, CorpusError


def read_corpus(place: str | Path) -> list[Utterance]:
    """Utterances of a manifest folder, of a corpus in any known layout, or of a folder that names no speakers.

    In the last case each recording is an utterance of the speaker "". Recordings that cannot be read are left out.

    Raises:
        CorpusError: no such folder, or nothing usable in it.
    """
    place = Path(place)
    if is_manifest(place):
        return read_manifest(place)
    with tempfile.TemporaryDirectory() as folder:
        try:
            find_corpus(place, "auto")
        except CorpusError:
            if not place.is_dir() or not list_recordings(place):
                raise
            return _of_nobody(place)
        prepare(place, folder)
        return read_manifest(folder)


def _of_nobody(folder: Path) -> list[Utterance]:
    utterances = []
    for path in list_recordings(folder):
        with contextlib.suppress(AudioError):
            utterances.append(Utterance(str(path), "", str(path), path, audio_info(path).duration))
    if not utterances:
        raise CorpusError(folder, "no recording in it can be read", "a corpus or recordings")
    return utterances
