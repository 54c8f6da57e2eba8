"""A client whose library encrypts into memory: memory.py ADDRESS PORT VERSION.

It sends what is there by itself. Its first session goes on and on until it gets SIGUSR1; then comes a second one.
"""

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

    def say(self, *lines):
        for line in lines:
            self.done(self.session.write, line.encode() + b"\r\n")
            self.done(self.session.read, 4096)

    def begin(self):
        self.in_clear(b"")
        self.in_clear(b"EHLO client.example\r\n")
        self.in_clear(b"STARTTLS\r\n")
        self.session = context.wrap_bio(self.incoming, self.outgoing)
        self.done(self.session.do_handshake)
        self.say("EHLO client.example")


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
first = Client()
first.begin()
while not signal.sigtimedwait({signal.SIGUSR1}, 0.02):
    first.say("NOOP")
first.say("QUIT")
second = Client()
second.begin()
second.say("NOOP", "MAIL FROM:<alice@client.example>", "RSET", "QUIT")
