"""A trained model as an HTTP service with a page: uploads in, labels out (`vsn serve`).

A request goes through `uploads` (streamed into a private folder), `pool` and `decoding` (frames, in
processes that may hang or die), `batching` (one thread that owns the model) and `answers`. `service` is that way
from end to end, `app` the routes, `guards` what holds for all of them, `run` the command's part.
"""
