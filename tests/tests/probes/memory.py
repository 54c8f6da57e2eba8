"""A client whose library encrypts into memory: memory.py ADDRESS PORT VERSION.

It sends what is there by itself. After its first session it says where BIO_write is in its memory, and goes on with the second
when it gets SIGUSR1.
"""

import ctypes
import signal
import socket
import ssl
import sys

address, port, version = sys.argv[1:]
context = ssl._create_unverified_context()
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]


class Client:
    def __init__(self):
        self.socket = socket.create_connection((address, int(port)))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def in_clear(self, line):
        self.socket.sendall(line)
        self.socket.recv(4096)

    def done(self, call, *arguments):
        while True:
            try:
                result = call(*arguments)
                self.send()
                return result
            except ssl.SSLWantReadError:
                self.send()
                self.incoming.write(self.socket.recv(4096))

    def send(self):
        if self.outgoing.pending:
            self.socket.sendall(self.outgoing.read())

    def converse(self):
        self.in_clear(b"")
        self.in_clear(b"EHLO client.example\r\n")
        self.in_clear(b"STARTTLS\r\n")
        session = context.wrap_bio(self.incoming, self.outgoing)
        self.done(session.do_handshake)
        for line in ["EHLO client.example"] + ["NOOP"] * 8 + ["MAIL FROM:<alice@client.example>", "RSET", "QUIT"]:
            self.done(session.write, line.encode() + b"\r\n")
            self.done(session.read, 4096)
        self.socket.close()


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
Client().converse()
print(hex(ctypes.cast(ctypes.CDLL("libcrypto.so.3").BIO_write, ctypes.c_void_p).value), flush=True)
signal.sigwait({signal.SIGUSR1})
Client().converse()
