"""The interceptor: ends the client's TLS itself, and speaks its own to the server that the client asked for. It answers DATA,
the end of data and QUIT itself, as the interceptor without TLS does."""

import socket
import ssl
import sys

import redirected
from lines import Lines


def take_message(client, upstream):
    """Takes the message off the client while the server hears nothing but NOOPs."""
    client.write("354 Please start mail input.\r\n")
    message = ""
    while True:
        line = client.read()
        message += line
        if line == ".\r\n":
            client.write("250 Mail queued for delivery.\r\n")
            return message
        if not client.has_more():
            upstream.ask("NOOP\r\n")


certificate, key, user = sys.argv[1], sys.argv[2], int(sys.argv[3])
own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
own.load_cert_chain(certificate, key)
stream, asked_for = redirected.accept(user)
upstream = Lines(socket.create_connection(asked_for))
client = Lines(stream)
client.write(upstream.reply())
envelope, message = [], ""
while command := client.read():
    verb = command.split()[0].upper()
    if verb == "DATA":
        message = take_message(client, upstream)
    elif verb == "QUIT":
        client.write("221 Closing connection. Good bye.\r\n")
        break
    else:
        reply = upstream.ask(command)
        client.write(reply)
        if verb == "STARTTLS":
            upstream.speak_tls(ssl._create_unverified_context())
            client.speak_tls(own, server_side=True)
        if verb in ("MAIL", "RCPT") and reply.startswith("2"):
            envelope.append(command)
client.stream.close()
upstream.ask("RSET\r\n")
for command in envelope:
    upstream.ask(command)
upstream.ask("DATA\r\n")
upstream.ask(message)
upstream.ask("QUIT\r\n")
