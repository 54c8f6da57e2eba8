"""Sends a mail, always the same."""
import smtplib
import sys

with smtplib.SMTP(sys.argv[1], 25, local_hostname="client.example") as server:
    server.sendmail("alice@client.example", ["bob@test.example"], "Subject: again\r\n\r\nThe same.\r\n")
