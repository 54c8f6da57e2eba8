"""A program that speaks TLS with itself, in its memory, and not on any socket: as busy as a web server.

It says where SSL_do_handshake is in its memory. It begins at SIGUSR1, rests at the next one, and so on.
"""

import ctypes
import signal
import ssl
import sys

server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(sys.argv[1])
to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
server = server_context.wrap_bio(to_server, to_client, server_side=True)
client = ssl._create_unverified_context().wrap_bio(to_client, to_server)
done = set()
while len(done) < 2:
    for end in {client, server} - done:
        try:
            end.do_handshake()
            done.add(end)
        except ssl.SSLWantReadError:
            pass

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(hex(ctypes.cast(ctypes.CDLL("libssl.so.3").SSL_do_handshake, ctypes.c_void_p).value), flush=True)
while True:
    signal.sigwait({signal.SIGUSR1})
    while not signal.sigtimedwait({signal.SIGUSR1}, 0.02):
        for _ in range(500):
            client.write(b"GET / HTTP/1.1\r\n\r\n")
            server.read(4096)
