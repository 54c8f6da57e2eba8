"""A program in between that passes every byte as it comes."""

import ctypes
import os
import signal
import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80
PR_SET_PDEATHSIG = 1


def passes(source, sink):
    while some := source.recv(65536):
        sink.sendall(some)
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # The other side has left first.
        pass


user = int(sys.argv[3])
listener = socket.create_server(("0.0.0.0", 10025))
os.setgroups([])
os.setgid(user)
os.setuid(user)
# Changing the user has undone what ends this program with the one that started it.
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
print("listening", flush=True)
client, _ = listener.accept()
_, port, address = struct.unpack("!HH4s8x", client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
server = socket.create_connection((socket.inet_ntoa(address), port))
back = threading.Thread(target=passes, args=(server, client))
back.start()
passes(client, server)
back.join()
