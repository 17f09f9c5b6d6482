# What type checkers and editors read: the names of __init__.py, with their types.
from voxnest.runtimes.description import read_description as read_description
from voxnest.runtimes.export import ExportReport as ExportReport
from voxnest.runtimes.export import export_encoder as export_encoder
from voxnest.runtimes.loading import load_encoder as load_encoder
