"""What smtplib does inside of TLS: mail.py SERVER VERSION ACTION. It checks itself that it was done."""

import base64
import os
import signal
import smtplib
import ssl
import sys

server, version, action = sys.argv[1:]
context = ssl._create_unverified_context()
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
MESSAGE = "Subject: x\r\n\r\nhello\r\n"


def session():
    smtp = smtplib.SMTP(server, 25, local_hostname="client.example")
    smtp.starttls(context=context)
    return smtp


def send(smtp, message=MESSAGE):
    smtp.sendmail("alice@client.example", ["ok@test.example"], message)


if action == "big":
    # Twenty megabytes, without a line that begins with a dot.
    message = "Subject: x\r\n\r\n" + "y" * 78 + "\r\n"
    lines = (20_000_000 - len(message)) // 80
    message += ("y" * 78 + "\r\n") * lines
    print(len(message))
    smtp = session()
    send(smtp, message)
    smtp.quit()
elif action == "resume":
    first = session()
    send(first)
    ticket = first.sock.session
    first.quit()
    wrap = context.wrap_socket
    context.wrap_socket = lambda sock, **options: wrap(sock, session=ticket, **options)
    second = session()
    assert second.sock.session_reused
    send(second)
    second.quit()
elif action in ["auth", "wrong"]:
    # Backwards, since this program may stand in the arguments of the process, which are told.
    user, password = "ydobemos"[::-1], "elpats yrettab esroh tcerroc"[::-1]
    for secret in [user, password]:
        print(secret)
        print(base64.b64encode(secret.encode()).decode())
    print(base64.b64encode(f"\0{user}\0{password}".encode()).decode())
    if action == "wrong":
        smtp = session()
        try:
            smtp.login(user, password)
            sys.exit("the password was not refused")
        except smtplib.SMTPAuthenticationError:
            smtp.quit()
        sys.exit()
    for mechanism in ["PLAIN", "LOGIN"]:
        smtp = session()
        smtp.user, smtp.password = user, password
        smtp.ehlo()
        smtp.auth(mechanism, getattr(smtp, "auth_" + mechanism.lower()))
        smtp.auth(mechanism, getattr(smtp, "auth_" + mechanism.lower()), initial_response_ok=False)
        send(smtp)
        smtp.quit()
elif action == "fork":
    smtp = session()
    send(smtp)
    freed, free = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(freed, 1)
        send(smtp)
        smtp.quit()
        os._exit(0)
    smtp.sock._sslobj = None
    os.write(free, b"x")
    _, status = os.waitpid(child, 0)
    sys.exit(status)
elif action == "noops":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    smtp, count = session(), 0
    smtp.ehlo()
    print("begun", flush=True)
    while not signal.sigtimedwait({signal.SIGUSR1}, 0.002):
        smtp.noop()
        count += 1
    smtp.quit()
    print(count)
elif action == "refused":
    smtp = session()
    try:
        send(smtp)
        sys.exit("the mail was not refused")
    except smtplib.SMTPRecipientsRefused:
        smtp.quit()
elif action == "one":
    smtp = session()
    send(smtp)
    smtp.quit()
