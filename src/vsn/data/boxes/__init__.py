"""The boxes of objects that clips of NL-I3D + GCN carry: stored in a file for each video, or found by a detector.

A folder of boxes has a file for each video, `a/1.boxes.csv` for the video `a/1.mp4`, and where `vsn boxes extract` wrote it
`boxes.json`, which says how boxes were found.
"""
