"""Label live sources and long files by sliding windows (`vsn stream`, `vsn predict --windows`).

Frames pass `source` (a file, camera or URL on one clock), `reader` (a thread with a bounded queue), `collect` (the frames
of each window), `scorer` (logits, with features of shared frames reused) and `labels` (smoothing). `plan` and `grid` place
the windows, `stream` connects the parts, `timeline` merges the predictions of a file into segments.
"""
