"""What a program in between does before it speaks: takes a connection that was redirected to it, and asks for whom it was meant."""

import ctypes
import os
import signal
import socket
import struct

SO_ORIGINAL_DST = 80
PR_SET_PDEATHSIG = 1


def accept(user):
    """The client, as a user whose own connections are not redirected; and the address that it asked for."""
    listener = socket.create_server(("0.0.0.0", 10025))
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    # Changing the user has undone what ends this program with the one that started it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    print("listening", flush=True)
    client, _ = listener.accept()
    _, port, address = struct.unpack("!HH4s8x", client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
    return client, (socket.inet_ntoa(address), port)
