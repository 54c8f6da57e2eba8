"""Sessions with TLS, one after the other, each as it is named; of those that come to be, it prints what Python says."""

import smtplib
import socket
import ssl
import sys

HOST = sys.argv[1]


def context(version=None, trusts=True):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    if trusts:
        made.verify_mode = ssl.CERT_NONE
    if version:
        made.minimum_version = made.maximum_version = version
    made.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    return made


def tell(stream):
    print(stream.version(), stream.cipher()[0], flush=True)


def connect(name="client.example"):
    session = smtplib.SMTP(HOST, 25, local_hostname=name)
    session.ehlo()
    return session


def answer(session, command):
    session.putcmd(command)
    return session.getreply()


def starttls(with_context, resumed=None):
    """smtplib does not let a session be resumed."""
    session = connect()
    assert answer(session, "STARTTLS")[0] == 220
    stream = with_context.wrap_socket(session.sock, server_hostname="mx.example", session=resumed)
    tell(stream)
    stream.sendall(b"EHLO client.example\r\n")
    assert stream.recv(100).startswith(b"250")
    stream.sendall(b"QUIT\r\n")
    assert stream.recv(100).startswith(b"221")
    assert stream.session_reused == (resumed is not None)
    known = stream.session
    stream.close()
    return known


def with_version(version):
    made = context(version)
    starttls(made, starttls(made))


def from_the_first_byte():
    session = smtplib.SMTP_SSL(HOST, 465, local_hostname="client.example", context=context(ssl.TLSVersion.TLSv1_3))
    tell(session.sock)
    session.noop()
    session.quit()


def with_distrust(version):
    session = connect()
    try:
        session.starttls(context=context(version, trusts=False))
    except ssl.SSLCertVerificationError:
        session.close()
    else:
        raise AssertionError("it trusts a certificate that nobody has signed")


def hanging_up():
    session = connect()
    assert answer(session, "STARTTLS")[0] == 220
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(ssl.TLSVersion.TLSv1_2).wrap_bio(received, sent, server_hostname="mx.example")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        session.sock.sendall(sent.read())
    head = session.sock.recv(5, socket.MSG_WAITALL)
    session.sock.recv(int.from_bytes(head[3:], "big"), socket.MSG_WAITALL)
    session.sock.close()


def refused():
    session = connect("refused.example")
    assert answer(session, "STARTTLS")[0] == 454
    session.quit()


def not_used():
    session = connect()
    session.mail("alice@client.example")
    session.quit()


with_version(ssl.TLSVersion.TLSv1_2)
with_version(ssl.TLSVersion.TLSv1_3)
from_the_first_byte()
with_distrust(ssl.TLSVersion.TLSv1_2)
with_distrust(ssl.TLSVersion.TLSv1_3)
hanging_up()
refused()
not_used()
