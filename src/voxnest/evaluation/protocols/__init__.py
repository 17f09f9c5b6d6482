"""The known trial lists: where they are, what they compare, how many trials they have. One file of data for each."""

from voxnest.evaluation.protocols.protocol import Protocol, find_protocol, protocol_names
from voxnest.evaluation.protocols.reading import find_protocol_trials

__all__ = ["Protocol", "find_protocol", "find_protocol_trials", "protocol_names"]
