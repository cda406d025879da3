"""An RTSP camera of GStreamer, for the Python of the system: python3 rtsp_server.py PORT [USER PASSWORD]

/gray/32, /gray/64 ... /gray/224 show one gray each, 48x32 pixels, 20 frames a second, as H.264. Prints "ready" when it
listens, and ends with its standard input.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main(port: str, user: str = "", password: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    if user:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", user)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
    for gray in range(32, 256, 32):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(
            f"( videotestsrc is-live=true pattern=solid-color foreground-color={0xFF000000 | gray * 0x010101} "
            "! video/x-raw,width=48,height=32,framerate=20/1 "
            "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 threads=1 ! rtph264pay name=pay0 pt=96 )"
        )
        factory.set_shared(True)
        if user:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role(user, "media.factory.access", True)
            permissions.add_permission_for_role(user, "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(f"/gray/{gray}", factory)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen at port {port}")
    loop = GLib.MainLoop()
    # The tests hold the other end: with them it ends.
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
