# What type checkers and editors read: the names of __init__.py, with their types.
from voxnest.foreign.encoders import convert as convert
from voxnest.hub.checkpoint import load_encoder as load_encoder
from voxnest.hub.checkpoint import read_metadata as read_metadata
from voxnest.hub.checkpoint import save_encoder as save_encoder
from voxnest.hub.download import fetch as fetch
from voxnest.hub.releases import RELEASES as RELEASES
from voxnest.hub.releases import Release as Release
from voxnest.hub.releases import find_release as find_release
