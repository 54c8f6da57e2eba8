"""SMTP and HTTPS, inside of TLS, in one process: others.py PORT OTHER CERTIFICATE.

Sessions of HTTPS are there beside one of SMTP, and after it at the very address that its session had in memory. Who says what
is secret says it in words of the letter z.
"""

import ctypes
import os
import socket
import ssl
import sys
import threading

port, other, certificate = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(certificate)
client_context = ssl._create_unverified_context()
listeners = {number: socket.create_server(("127.0.0.1", number)) for number in (port, other)}


class Session:
    """Both ends of one."""

    def __init__(self, number, in_clear=()):
        self.client = socket.create_connection(("127.0.0.1", number))
        self.server = listeners[number].accept()[0]
        for text in in_clear:
            self.say(text)
        accepting = threading.Thread(target=self.accept)
        accepting.start()
        self.client = client_context.wrap_socket(self.client)
        accepting.join()

    def accept(self):
        self.server = server_context.wrap_socket(self.server, server_side=True)

    def say(self, text):
        speaker, listener = (self.client, self.server) if text[0] == "C" else (self.server, self.client)
        text = text[3:].encode()
        speaker.sendall(text)
        heard = b""
        while len(heard) < len(text):
            heard += listener.recv(len(text) - len(heard))

    def addresses(self):
        # `SSL *ssl` follows the object's head and a reference to its socket (Modules/_ssl.c).
        return {ctypes.c_void_p.from_address(id(end._sslobj) + 24).value for end in (self.client, self.server)}

    def close(self):
        self.client.close()
        self.server.close()


def smtp():
    return Session(port, ["S: 220 mx.example\r\n", "C: STARTTLS\r\n", "S: 220 Go\r\n"])


def https(session):
    session.say("C: GET /zzzzz HTTP/1.1\r\nHost: zzzzz\r\n\r\n")
    session.say("S: HTTP/1.1 200 zzzzz\r\n\r\nEHLO zzzzz\r\nMAIL FROM:<zzzzz@zzzzz>\r\n")


beside = Session(other)
mail = smtp()
for text in ["C: EHLO client.example\r\n", "S: 250 mx.example\r\n"]:
    https(beside)
    mail.say(text)
https(beside)
addresses = mail.addresses()
mail.say("C: QUIT\r\n")
mail.say("S: 221 Bye\r\n")
# The sockets stay open for longer than their sessions are there.
copies = [os.dup(end.fileno()) for end in (mail.client, mail.server)]
mail.close()
del mail

kept, reused = [beside], set()
for _ in range(64):
    session = Session(other)
    https(session)
    kept.append(session)
    reused |= session.addresses() & addresses
    if reused == addresses:
        break
assert reused, "no session has got an address of the one that was over"
for copy in copies:
    os.close(copy)
# And the other way round.
beside.close()
kept.clear()
last = smtp()
for text in ["C: EHLO client.example\r\n", "S: 250 mx.example\r\n", "C: QUIT\r\n", "S: 221 Bye\r\n"]:
    last.say(text)
last.close()
