"""Serves SMTP: on port 25 with STARTTLS, which it refuses to some; on port 465 in TLS from the first byte."""

import socket
import ssl
import sys
import threading

HOST, CERTIFICATE, KEY = sys.argv[1:]
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(CERTIFICATE, KEY)


def line_of(stream):
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            return b""
        line += byte
    return line.upper()


def serve(stream, offers):
    refuses = False
    if not offers:
        stream = CONTEXT.wrap_socket(stream, server_side=True)
    stream.sendall(b"220 mx.example ESMTP\r\n")
    while line := line_of(stream):
        if line.startswith(b"EHLO"):
            refuses = b"REFUSED" in line
            stream.sendall(b"250-mx.example\r\n250 STARTTLS\r\n" if offers else b"250 mx.example\r\n")
        elif line.startswith(b"STARTTLS") and refuses:
            stream.sendall(b"454 4.7.0 not now\r\n")
        elif line.startswith(b"STARTTLS"):
            stream.sendall(b"220 2.0.0 ready\r\n")
            stream, offers = CONTEXT.wrap_socket(stream, server_side=True), False
        elif line.startswith(b"QUIT"):
            stream.sendall(b"221 2.0.0 bye\r\n")
            break
        else:
            stream.sendall(b"250 2.0.0 ok\r\n")
    stream.close()


def serve_whom_it_can(stream, offers):
    try:
        serve(stream, offers)
    except OSError as failure:
        print(repr(failure), flush=True)
        stream.close()


def listen(port, offers):
    with socket.create_server((HOST, port)) as listener:
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=serve_whom_it_can, args=(stream, offers)).start()


threading.Thread(target=listen, args=(465, False)).start()
listen(25, True)
