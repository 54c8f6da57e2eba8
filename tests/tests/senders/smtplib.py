"""One session: what smtplib says after each failure, and what it is told to say; inside of TLS where a second argument asks
for that."""

import smtplib
import ssl
import sys

MESSAGE = "Subject: x\r\n\r\nhello\r\n"


def send(sender, *recipients):
    try:
        session.sendmail(sender + "@client.example", [name + "@test.example" for name in recipients], MESSAGE)
    except smtplib.SMTPException as failure:
        print(repr(failure))


session = smtplib.SMTP(sys.argv[1], 25, local_hostname="client.example")
if len(sys.argv) > 2:
    session.starttls(context=ssl._create_unverified_context())
send("no-mail", "one")
send("alice", "no-rcpt")
send("alice", "one", "no-rcpt")
session.noop()
send("alice", "no-message")
send("alice", "no-data")
send("alice", "one")
session.rset()
session.quit()
