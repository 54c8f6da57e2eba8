"""A program in between that passes every byte as it comes."""

import socket
import sys
import threading

import redirected


def passes(source, sink):
    while some := source.recv(65536):
        sink.sendall(some)
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # The other side has left first.
        pass


client, asked_for = redirected.accept(int(sys.argv[3]))
server = socket.create_connection(asked_for)
back = threading.Thread(target=passes, args=(server, client))
back.start()
passes(client, server)
back.join()
