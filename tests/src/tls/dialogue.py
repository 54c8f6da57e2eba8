"""Plays a dialogue, both ends in this process: dialogue.py PORT CERTIFICATE VERSION SIZE STEPS.

STEPS is a list in JSON: `C: …` or `S: …` is said in calls of SIZE bytes, 0 for one call, and read by the other end before more
is said; `TLS` begins TLS at both ends; at `PAUSE` it says on its output where
SSL_do_handshake is in its memory, and goes on when it gets SIGUSR1.
"""

import ctypes
import json
import signal
import socket
import ssl
import sys
import threading

port, certificate, version, size, steps = sys.argv[1:]

server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(certificate)
client_context = ssl._create_unverified_context()
client_context.minimum_version = client_context.maximum_version = ssl.TLSVersion[version]

listener = socket.create_server(("127.0.0.1", int(port)))
ends = {"C": socket.create_connection(("127.0.0.1", int(port)))}
ends["S"] = listener.accept()[0]
for end in ends.values():
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def accept():
    ends["S"] = server_context.wrap_socket(ends["S"], server_side=True)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
for step in json.loads(steps):
    if step == "PAUSE":
        print(hex(ctypes.cast(ctypes.CDLL("libssl.so.3").SSL_do_handshake, ctypes.c_void_p).value), flush=True)
        signal.sigwait({signal.SIGUSR1})
        continue
    if step == "TLS":
        accepting = threading.Thread(target=accept)
        accepting.start()
        ends["C"] = client_context.wrap_socket(ends["C"])
        accepting.join()
        continue
    speaker, text = step.split(": ", 1)
    text, listener_ = text.encode(), ends["S" if speaker == "C" else "C"]
    length = int(size) or len(text)
    for start in range(0, len(text), length):
        said = text[start:start + length]
        ends[speaker].sendall(said)
        heard = b""
        while len(heard) < len(said):
            heard += listener_.recv(len(said) - len(heard))
        assert heard == said, (heard, said)
ends["C"].close()
assert ends["S"].recv(1) == b""
ends["S"].close()
