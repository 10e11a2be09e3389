"""`sendmail`: what programs pipe their mail into, handed to a relay that runs.

A program calls it for every single message and waits for it, so it starts quickly: next to nothing is imported, and in
particular no `typing`, `dataclasses`, `smtplib` or `email`, each of which would cost as much as all the rest together.
That is why there is no `Final` here, why small classes are written out, and why nothing comes from the relay's other
rooms, which need those modules.

A message goes through these rooms: `options` (what was asked for), `message` (stdin becomes header and content),
`header` (who gets it, what is added and removed), `addresses`, `aliases` and `origin` (complete addresses), `place`
(where the relay is), `client` (the transaction). `bridge` is for callers that speak SMTP themselves.
"""
