"""The server: takes one session with STARTTLS, and forgets every mail."""

import socket
import ssl
import sys

from lines import Lines

REPLIES = {
    "MAIL": "250 2.1.0 Sender ok\r\n",
    "RCPT": "250 2.1.5 Recipient ok\r\n",
    "NOOP": "250 2.0.0 Still here\r\n",
    "RSET": "250 2.0.0 Reset\r\n",
    "QUIT": "221 2.0.0 Bye\r\n",
    "STARTTLS": "220 2.0.0 Ready to start TLS\r\n",
}

address, certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server((address, 25))
print("listening", flush=True)
stream, _ = listener.accept()
client = Lines(stream)
client.write("220 mail.server.example ESMTP ready\r\n")
offer = "250-STARTTLS\r\n"
while command := client.read():
    verb = command.split()[0].upper()
    if verb == "EHLO":
        client.write(f"250-mail.server.example\r\n{offer}250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n")
    elif verb == "DATA":
        client.write("354 End data with <CR><LF>.<CR><LF>\r\n")
        while client.read() not in (".\r\n", ""):
            pass
        client.write("250 2.0.0 Ok: queued as 4F1C0A77\r\n")
    else:
        client.write(REPLIES.get(verb, "500 5.5.2 What was that?\r\n"))
    if verb == "STARTTLS":
        client.speak_tls(context, server_side=True)
        offer = ""
    if verb == "QUIT":
        break
