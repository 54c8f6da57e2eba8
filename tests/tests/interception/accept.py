"""Hands each connection's bytes to a child, and the child's to the connection."""
import socket
import subprocess
import sys
import threading

listener = socket.create_server(("", int(sys.argv[1])))


def pump(read, write, end):
    while chunk := read(65536):
        write(chunk)
    end()


while True:
    client, _ = listener.accept()
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    up = threading.Thread(target=pump, args=(client.recv, child.stdin.write, child.stdin.close))
    up.start()
    pump(child.stdout.read, client.sendall, lambda: client.shutdown(socket.SHUT_WR))
    up.join()
    child.wait()
    client.close()
