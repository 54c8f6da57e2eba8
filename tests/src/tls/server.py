"""A server that refuses what it is asked to refuse, as the one of the scene, and speaks TLS: server.py ADDRESS CERTIFICATE VERSION.

It says on its output when it listens, and where SSL_do_handshake is in its memory: so a test sees whether that is probed.
"""

import ctypes
import socket
import ssl
import sys
import threading

EXTENSIONS = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"]
REPLIES = {"RSET": "250 2.0.0 Reset", "NOOP": "250 2.0.0 Still here", "QUIT": "221 2.0.0 Bye"}
WRONG = "503 5.5.1 Bad sequence of commands"

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
context.options |= 0x100  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
context.minimum_version = context.maximum_version = ssl.TLSVersion[sys.argv[3]]


class Session(threading.Thread):
    def __init__(self, connection):
        super().__init__(daemon=True)
        self.connection, self.received, self.replies, self.secure = connection, b"", [], False

    def lines(self):
        while True:
            while b"\n" not in self.received:
                self.flush()
                more = self.connection.recv(65536)
                if not more:
                    return
                self.received += more
            line, self.received = self.received.split(b"\n", 1)
            yield line + b"\n"

    def flush(self):
        if self.replies:
            self.connection.sendall("".join(line + "\r\n" for line in self.replies).encode())
            self.replies = []

    def content(self):
        self.flush()
        content = b"\r\n" + self.received
        while (end := content.find(b"\r\n.\r\n")) < 0:
            content = content[-4:] + (self.connection.recv(65536) or b"\r\n.\r\n")
        self.received = content[end + 5:]

    def run(self):
        self.replies = ["220 mail.server.example ESMTP ready"]
        sender, recipients = None, []
        lines = self.lines()
        for line in lines:
            words = line.decode().split()
            verb = words[0].upper() if words else ""
            asks = lambda step, text=line: b"<no-%b@" % step in text
            refused = lambda step: asks(step, b"".join(filter(None, [sender, *recipients])))
            reply = REPLIES.get(verb, "500 5.5.2 What was that?")
            if verb == "EHLO":
                more = ["AUTH PLAIN LOGIN"] if self.secure else ["STARTTLS"]
                offer = ["mail.server.example", *EXTENSIONS, *more]
                self.replies += ["250-" + line for line in offer[:-1]]
                reply, sender, recipients = "250 " + offer[-1], None, []
            elif verb == "STARTTLS":
                self.replies.append("220 2.0.0 Ready to start TLS")
                self.flush()
                self.connection, self.secure = context.wrap_socket(self.connection, server_side=True), True
                sender, recipients, self.received = None, [], b""
                continue
            elif verb == "AUTH":
                for _ in range({"PLAIN": 1, "LOGIN": 2}[words[1].upper()] + 2 - len(words)):
                    self.replies.append("334 VXNlcm5hbWU6")
                    self.flush()
                    next(lines)
                reply = "235 2.7.0 Authentication successful"
            elif verb == "MAIL":
                reply = WRONG if sender else "550 5.7.1 Sender refused" if asks(b"mail") else "250 2.1.0 Sender ok"
                sender = sender or (line if reply.startswith("250") else None)
            elif verb == "RCPT":
                reply = "503 5.5.1 Bad sequence of commands" if not sender else "250 2.1.5 Recipient ok"
                if sender and asks(b"rcpt"):
                    reply = "550 5.1.1 Recipient refused"
                elif sender:
                    recipients.append(line)
            elif verb == "DATA" and refused(b"data"):
                reply = "554 5.7.1 Data refused"
            elif verb == "DATA" and recipients:
                self.replies.append("354 End data with <CR><LF>.<CR><LF>")
                self.content()
                reply = "550 5.7.1 Message refused" if refused(b"message") else "250 2.0.0 Ok: queued as 4F1C0A77"
                sender, recipients = None, []
            elif verb == "DATA":
                reply = WRONG
            elif verb == "RSET":
                sender, recipients = None, []
            self.replies.append(reply)
            if verb == "QUIT":
                self.flush()
                break
        self.connection.close()


address, port = sys.argv[1].split(":")
listener = socket.create_server((address, int(port)), backlog=64)
print(hex(ctypes.cast(ctypes.CDLL("libssl.so.3").SSL_do_handshake, ctypes.c_void_p).value), flush=True)
while True:
    Session(listener.accept()[0]).start()
