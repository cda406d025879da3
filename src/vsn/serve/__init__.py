"""Serve a trained model over HTTP, with a web page: videos in, labels out (`vsn serve`).

A request passes `uploads` (streamed into a private folder), `pool` and `decoding` (worker processes that may hang
or crash), and `batching` (one thread that owns the model). `service` connects them, `app` holds the routes, `guards`
the checks of every request, `schemas` and `problems` the responses, `run` the entry point of the command.
"""
