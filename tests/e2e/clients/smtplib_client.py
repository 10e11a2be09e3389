"""Python's smtplib: `send_message` for messages that it composes, `sendmail` for octets."""

import smtplib

from tests.e2e.clients import composing


def connect(target):
    if target["tls"] == "implicit":
        client = smtplib.SMTP_SSL(target["host"], target["port"], context=composing.trust(target), timeout=20)
    else:
        client = smtplib.SMTP(target["host"], target["port"], timeout=20)
    if target["tls"] == "starttls":
        client.starttls(context=composing.trust(target))
    if target["login"] is not None:
        client.login(target["login"], target["password"])
    return client


def main():
    targets, messages = composing.job()
    for target in targets:
        with connect(target) as client:
            for message in messages:
                send = client.sendmail if message["eight_bit"] else client.send_message
                try:
                    if message["eight_bit"]:
                        arguments = composing.sender(message, target), message["recipients"], message["composed"]
                    else:
                        arguments = message["composed"], composing.sender(message, target), message["recipients"]
                    send(*arguments, mail_options=composing.options(message))
                    composing.tell(target, message)
                except smtplib.SMTPException as error:
                    composing.tell(target, message, error)


main()
