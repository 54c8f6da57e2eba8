"""A mail server that takes all that it is sent, one connection after the other."""
import socket
import sys

listener = socket.create_server((sys.argv[1], 25))
while True:
    client, _ = listener.accept()
    with client, client.makefile("rb") as lines:
        client.sendall(b"220 server.example ESMTP\r\n")
        content = False
        for line in lines:
            if content and line != b".\r\n":
                continue
            if line.upper().startswith(b"DATA"):
                content = True
                client.sendall(b"354 go ahead\r\n")
            elif line.upper().startswith(b"QUIT"):
                client.sendall(b"221 bye\r\n")
                break
            else:
                content = False
                client.sendall(b"250 ok\r\n")
