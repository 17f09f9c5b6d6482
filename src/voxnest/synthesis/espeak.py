"""Text to samples with eSpeak NG, in a process of its own.

libespeak-ng keeps global state: it is not thread-safe, and its noise and phase carry over from one utterance
to the next. `synthesize` therefore starts a fresh process per call and speaks the requests in order, which
makes the samples depend on the requests alone. A crash of the C library becomes an error of the caller.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from voxnest.errors import CorpusError

SAMPLE_RATE = 22050  # what every formant voice of eSpeak NG is synthesised at
_MAX_PATH = 120  # the library silently cuts longer paths (its buffers hold 160 bytes)

# Constants of speak_lib.h.
_SYNCHRONOUS_RETRIEVAL, _DONT_EXIT, _CHARS_UTF8, _POSITION_CHARACTER = 2, 0x8000, 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_HEADROOM = 50  # volume in per cent: at 100, four voices in ten clip
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Request:
    """One utterance to speak.

    Args:
        voice: an eSpeak NG voice definition, the text of a voice file
            (https://github.com/espeak-ng/espeak-ng/blob/master/docs/voices.md).
        text: what to say.
        rate: words per minute, 80 to 450.
        pitch: 0 to 100, where 50 is the voice's own pitch.
        pitch_range: 0 (monotone) to 100, where 50 is the voice's own range.
        seed: of the library's noise, positive.
    """

    voice: str
    text: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    seed: int = 1


def synthesize(requests: Iterable[Request]) -> Generator[bytes, None, None]:
    """Speak the requests in order; give each one's samples as 16-bit native-endian mono at `SAMPLE_RATE`.

    Raises:
        CorpusError: the library cannot be loaded, refuses a voice, or crashes.
    """
    with tempfile.TemporaryFile() as orders, tempfile.TemporaryFile() as complaints:
        for request in requests:
            orders.write(json.dumps(asdict(request)).encode() + b"\n")
        orders.seek(0)
        command = [sys.executable, "-m", "voxnest.synthesis.espeak"]
        with subprocess.Popen(command, stdin=orders, stdout=subprocess.PIPE, stderr=complaints) as process:
            assert process.stdout is not None
            try:
                while header := process.stdout.read(4):
                    size = int.from_bytes(header, "little")
                    samples = process.stdout.read(size)
                    if len(samples) < size:
                        break
                    yield samples
            except BaseException:  # also when the caller stops early: nothing is left running
                process.kill()
                raise
            status = process.wait()
        if status:
            complaints.seek(0)
            lines = complaints.read().decode(errors="replace").strip().splitlines()
            found = lines[-1] if lines else "no reason given"
            raise CorpusError("espeak-ng", found if status > 0 else f"crashed with signal {-status}: {found}")


class _Library:
    """libespeak-ng of the wheel `espeakng_loader`, initialised once per process."""

    def __init__(self, folder: Path) -> None:
        import espeakng_loader

        self._folder = folder
        data = espeakng_loader.get_data_path()
        if len(os.fsencode(data)) > _MAX_PATH:
            (folder / "data").symlink_to(data, target_is_directory=True)
            data = str(folder / "data")
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = self._library.espeak_Initialize(_SYNCHRONOUS_RETRIEVAL, 0, os.fsencode(data), _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"no usable voice data in {data}")
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def speak(self, request: Request) -> bytes:
        if request.voice != self._voice:
            path = self._folder / "voice"
            path.write_text(request.voice, encoding="utf-8")
            if self._library.espeak_SetVoiceByFile(os.fsencode(path)):
                raise RuntimeError(f"refuses the voice {request.voice.splitlines()[0]!r}")
            self._voice = request.voice
        self._library.espeak_ng_SetRandSeed(request.seed)
        for parameter, value in (
            (_VOLUME, _HEADROOM),
            (_RATE, request.rate),
            (_PITCH, request.pitch),
            (_RANGE, request.pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        text = request.text.encode()
        size = ctypes.c_size_t(len(text) + 1)
        if self._library.espeak_Synth(text, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None):
            raise RuntimeError(f"refuses the text {request.text!r}")
        return b"".join(self._chunks)


def _serve() -> None:
    """Read requests from standard input, write lengths and samples to standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints must not end up between the samples
    with tempfile.TemporaryDirectory(prefix="espeak-") as folder:
        library = _Library(Path(folder))
        for line in sys.stdin:
            samples = library.speak(Request(**json.loads(line)))
            output.write(len(samples).to_bytes(4, "little") + samples)
        output.flush()


if __name__ == "__main__":
    try:
        with contextlib.suppress(BrokenPipeError):
            _serve()
    except Exception as error:
        sys.exit(f"the speech synthesiser cannot be used: {error} (needs the package espeakng-loader)")
