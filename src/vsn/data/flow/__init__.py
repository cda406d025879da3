"""Optical flow that is stored on disk: its values, the layouts that are read and written, where it lies.

A field of flow is uint8 `(H, W, 2)`: how far each pixel moves to the next frame, to the right (x) and
down (y). Byte b stands for `(2 b / 255 - 1) * bound` pixels, so that 0 is stored as 128. A video of N
frames has N - 1 fields; others store N. What is stored counts. The layouts of `data.flow_layout`, by
video:

    xy      a folder of gray pictures flow_x_00001.jpg and flow_y_00001.jpg (TSN; UCF101, HMDB51), or with
            another beginning, 000123-x_00001.jpg (Something-Something V1)
    rg      a folder of pictures 000001.jpg whose red is x and whose green is y (Something-Something V2)
    file    one file, video.vsnflow (`vsn.data.flow.file`), which `write_flow_file` writes

Beside the videos' flow lies `flow.json`: bound, zero and method. Others' flow has none; it is taken for
TV-L1 bounded at 20 pixels, which TSN and the code bases after it store.
"""
