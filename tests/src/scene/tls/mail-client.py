"""The client: sends one mail through STARTTLS, whose body somebody types. It trusts whatever certificate it is shown."""

import socket
import ssl
import sys
import time

from lines import Lines

TYPING = 0.5
HEADER = "From: <alice@client.example>\r\nTo: <bob@server.example>\r\nSubject: Lunch\r\n\r\n"
BODY = ["Hello Bob,\r\n", "shall we meet at noon?\r\n", "I am paying.\r\n", "Alice\r\n"]


def expect(code, reply):
    if not reply.startswith(code):
        sys.exit(f"the server should have said {code}, it said: {reply}")


server = Lines(socket.create_connection((sys.argv[1], 25)))
expect("220", server.reply())
expect("250", server.ask("EHLO client.example\r\n"))
expect("220", server.ask("STARTTLS\r\n"))
server.speak_tls(ssl._create_unverified_context())
expect("250", server.ask("EHLO client.example\r\n"))
expect("250", server.ask("MAIL FROM:<alice@client.example>\r\n"))
expect("250", server.ask("RCPT TO:<bob@server.example>\r\n"))
expect("354", server.ask("DATA\r\n"))
server.write(HEADER)
for line in BODY:
    time.sleep(TYPING)
    server.write(line)
time.sleep(TYPING)
expect("250", server.ask(".\r\n"))
expect("221", server.ask("QUIT\r\n"))
