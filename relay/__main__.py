"""The `sparkpost-relay` program, which is `python -m relay`.

`sendmail` has a way of its own: its options are not like the others', and the command line's library would take longer
to import than the message to be sent.
"""

import sys


def main() -> None:
    if sys.argv[1:2] == ["sendmail"]:
        from relay.sendmail.command import main as sendmail

        del sys.argv[0]
        sendmail()
    else:
        from relay.cli import main as cli

        cli()


if __name__ == "__main__":
    main()
