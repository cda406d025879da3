"""From a labeled video on disk to a uint8 clip: records, decoding, sampling, crops, loaders."""
