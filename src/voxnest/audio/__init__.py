"""Any recording -> mono float32 samples at the model's rate.

libsndfile decodes WAV (8 to 64 bits), FLAC, Ogg Opus, AIFF, AU and CAF; FFmpeg (PyAV) decodes MP3, Ogg
Vorbis, M4A/AAC, the sound track of MP4 and WebM, and whatever else it knows. Channels are averaged, the rate
is converted with soxr, and a partial read seeks. Whatever is wrong with a file is an `AudioError` that names
it. There is no global state: reading is safe in threads and in forked data-loader workers.
"""

from voxnest.audio.folders import AUDIO_SUFFIXES, list_recordings, walk
from voxnest.audio.reading import (
    SAMPLE_RATE,
    SILENCE_PEAK,
    Audio,
    AudioInfo,
    audio_info,
    read_audio,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "SAMPLE_RATE",
    "SILENCE_PEAK",
    "Audio",
    "AudioInfo",
    "audio_info",
    "list_recordings",
    "read_audio",
    "walk",
]
