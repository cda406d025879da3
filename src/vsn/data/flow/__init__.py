"""Compute, store, find and read optical flow.

A field of flow is uint8 `(H, W, 2)`: the motion of each pixel to the next frame, to the right (x) and down (y). Byte b
stands for `(2 b / 255 - 1) * bound` pixels, so no motion is 128. A video of N frames has N - 1 fields, or N in flow of
some other software; the number of stored fields counts. The layouts of a video's flow, `data.flow_layout`:

    xy      a folder of gray pictures flow_x_00001.jpg and flow_y_00001.jpg (TSN; UCF101, HMDB51), or with another
            prefix, 000123-x_00001.jpg (Something-Something V1)
    rg      a folder of pictures 000001.jpg with x in red and y in green (Something-Something V2)
    file    one file, video.vsnflow, written by `vsn flow extract`

Next to the videos' flow is `flow.json`: bound, zero and method. Flow from other software has none, and is taken for
TV-L1 bounded at 20 pixels, as TSN and the code bases after it store it.
"""
