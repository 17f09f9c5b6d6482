"""Architectures, pooling, head, `SpeakerEncoder` and the registry of what can be built by name."""
