"""Files, signals, processes, devices, progress bars: what every layer above uses."""
