"""Training on Lightning: typed configuration, crops and trials, schedules, checkpoints, run folders.

Start at `voxnest.training.settings.load_config` and `voxnest.training.run.train`; `configs/example.yaml` shows
every option. This package imports nothing by itself, so that checking a configuration stays light.
"""
