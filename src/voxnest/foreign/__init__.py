"""Files and directories of other projects, as encoders of ours. Nothing else knows their layouts."""
