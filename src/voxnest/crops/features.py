"""Features of a corpus kept in a folder: computed once, in shards that know which audio they came from.

Each shard is two files: `NNNNN.features`, `[frames, bins]` in half precision, one utterance after the other, and
`NNNNN.json`, which says of which audio and front end, how many frames each utterance has, and the checksum of the
first. A shard that is cut short, damaged or of audio that has changed is computed again, and so is only what is missing
after an interruption.
"""

from __future__ import annotations

import copy
import json
import os
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxnest.corpora.manifest import Utterance
from voxnest.crops.corpus_statistics import corpus_identity, in_order, raw_features, threads
from voxnest.crops.dataset import Crop, CropDataset, CropRequest
from voxnest.errors import AudioError, CorpusError
from voxnest.files import atomic_write, writing
from voxnest.frontends import Frontend

_SHARD = 256  # utterances: 100 MB of spectrograms of VoxCeleb
_READ = 1 << 24  # bytes at once


class FeatureCache:
    """Raw features of utterances in a folder, to read pieces from.

    Args:
        folder: where the features of any number of corpora and front ends lie, each in a folder of its own.
        frontend: whose `raw_features` are kept.
        utterances: of the corpus, in an order that stays.
    """

    def __init__(self, folder: Path, frontend: Frontend, utterances: Sequence[Utterance]) -> None:
        self.frontend, self.bins = copy.deepcopy(frontend).cpu(), frontend.bins  # the encoder's goes to a GPU
        self._shards = [utterances[start : start + _SHARD] for start in range(0, len(utterances), _SHARD)]
        listed = sha256(frontend.fingerprint().encode())
        for item in utterances:
            listed.update(f"{item.path}\t{item.offset}\t{item.duration}\n".encode(errors="surrogateescape"))
        self.folder = folder / listed.hexdigest()[:16]
        self._frames: np.ndarray | None = None
        self._maps: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a worker opens its own

    def build(self, *, jobs: int | None = None, progress: Callable[[int, int], None] | None = None) -> None:
        """Compute what is not there yet, in threads.

        Args:
            jobs: as many as processors when None.
            progress: called with the utterances done and their total.

        Raises:
            CorpusError: no utterance can be read, or a shard cannot be written.
        """
        self._frames, self._maps = None, {}
        total = sum(map(len, self._shards))
        count = jobs or os.cpu_count() or 1
        done, frames = 0, 0
        with threads(count) as pool:
            for found in in_order(pool, self._complete, iter(range(len(self._shards))), count):
                done, frames = done + len(found), frames + sum(found)
                if progress:
                    progress(done, total)
        if not frames:
            raise CorpusError(self.folder, f"none of {total} utterances can be read", "recordings")

    @property
    def frames(self) -> np.ndarray:
        """Frames of each utterance, `[utterances] int64`; 0 if it could not be read."""
        if self._frames is None:
            counts: list[int] = []
            for number in range(len(self._shards)):
                content = self._described(number)
                if content is None:
                    raise CorpusError(self._path(number, "json"), "is missing or does not fit", "a finished `build`")
                counts += content["frames"]
            self._frames = np.array(counts, np.int64)
            self._ends = np.cumsum(self._frames)
        return self._frames

    def read(self, utterance: int, start: int, count: int) -> np.ndarray:
        """Frames `[start, start + count)` of an utterance, fewer where it ends: `[bins, 1..count] float32`.

        Raises:
            AudioError: it has none there.
        """
        frames = self.frames
        shard, first = divmod(utterance, _SHARD)
        if start >= frames[utterance]:
            raise AudioError(self._shards[shard][first].path, f"no features after frame {start}")
        if shard not in self._maps:
            path = self._path(shard, "features")
            self._maps[shard] = np.memmap(path, np.float16, "r").reshape(-1, self.bins)
        before = 0 if not utterance else self._ends[utterance - 1]
        place = int(before - (self._ends[shard * _SHARD - 1] if shard else 0)) + start
        piece = self._maps[shard][place : place + min(count, int(frames[utterance]) - start)]
        return np.ascontiguousarray(piece.T, np.float32)

    def _path(self, shard: int, suffix: str) -> Path:
        return self.folder / f"{shard:05d}.{suffix}"

    def _described(self, shard: int) -> dict[str, Any] | None:
        """What the shard says of itself if it is of this audio and as long as it should be."""
        try:
            content = json.loads(self._path(shard, "json").read_text(encoding="utf-8"))
            frames, size = content["frames"], self._path(shard, "features").stat().st_size
            fits = len(frames) == len(self._shards[shard]) and size == 2 * self.bins * sum(frames)
            same = fits and content["identity"] == corpus_identity(self.frontend, self._shards[shard])
            return content if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _complete(self, shard: int) -> list[int]:
        """Make a shard if it is not there and sound; give the frames of its utterances."""
        content = self._described(shard)
        if content is None or content.get("checksum") != _checksum(self._path(shard, "features")):
            content = self._make(shard)
        return list(content["frames"])

    def _make(self, shard: int) -> dict[str, Any]:
        pieces: list[np.ndarray] = []
        frames: list[int] = []
        identity = corpus_identity(self.frontend, self._shards[shard])
        for utterance in self._shards[shard]:
            try:
                (features,) = raw_features(self.frontend, utterance)
                pieces.append(features.T.astype(np.float16))
                frames.append(features.shape[1])
            except AudioError:  # training tells of it
                frames.append(0)
        data = b"".join(piece.tobytes() for piece in pieces)
        content = {"identity": identity, "frames": frames, "checksum": zlib.crc32(data)}
        with writing(self.folder, CorpusError, "room on the disk"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(shard, "features")) as temporary:
                temporary.write_bytes(data)
            with atomic_write(self._path(shard, "json")) as temporary:
                temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        return content


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_READ):
            value = zlib.crc32(block, value)
    return value


class FeatureCrops(CropDataset):
    """Crops of kept features rather than of recordings: batches have `features [batch, bins, frames]`, raw.

    Args:
        cache: of the same utterances in the same order.
        utterances: see `CropDataset`, as the others.
        reverse_probability: share of crops whose frames are turned around.
        options: of `CropDataset`; there are neither speeds nor augmentation.
    """

    def __init__(
        self, cache: FeatureCache, utterances: Sequence[Utterance], *, reverse_probability: float = 0.0, **options: Any
    ) -> None:
        super().__init__(utterances, cache_gb=0.0, **options)
        self.cache, self.reverse_probability = cache, reverse_probability
        self._shapes: dict[float, tuple[int, ...]] = {}
        self._paths = [item.path for item in utterances]

    def read(self, request: CropRequest) -> dict[str, torch.Tensor]:
        """The crops of a request as one batch: `features`, `label` and `utterance`."""
        batch = super().read(request)
        return {"features": batch.pop("waveform"), **batch}

    def _shape(self, duration: float) -> tuple[int, ...]:
        if duration not in self._shapes:
            waveform = torch.zeros(1, round(duration * self.sample_rate))
            self._shapes[duration] = tuple(self.cache.frontend.raw_features(waveform).shape[1:])
        return self._shapes[duration]

    def _crop(self, epoch: int, position: int, label: int, duration: float) -> Crop:
        rng = self._generator(epoch, position)
        count = self._shape(duration)[1]
        place = rng.random()
        for utterance in self._candidates(label, rng):
            length = int(self.cache.frames[utterance])
            try:
                features = self.cache.read(utterance, int(place * max(length - count + 1, 0)), count)
                break
            except AudioError as error:
                self._store.failures.setdefault(self._paths[utterance], error.found)
        else:
            raise CorpusError(self.cache.folder, "no features of any utterance", "recordings that can be read")
        if features.shape[1] < count:  # repeated, as short recordings are
            features = np.tile(features, (1, -(-count // features.shape[1])))[:, :count]
        if self.reverse_probability and rng.random() < self.reverse_probability:
            features = features[:, ::-1]
        return Crop(features, int(self._speaker[utterance]), utterance)
