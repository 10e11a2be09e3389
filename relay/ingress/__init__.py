"""How mail enters: sockets, the SMTP dialogue, the content, and the hinge where responsibility is taken.

Behind a proxy, `proxied` finds out first whose connection it is; `proxy` reads the header. The octets of one session go
through `session` (the transport's side) into `dialogue` (sans-IO: octets in, replies and steps out). `lines` cuts them
into commands; `conversation` says what each is answered, and asks `transaction` about MAIL, RCPT and DATA; `data` reads
the content, `unwrapping` makes lines of it, `body` keeps it, within the bounds of `memory`. Steps are carried out by
`errands`; a complete message goes to `reception`, which applies the policy and hands it to the intake.

`patience`, `pace`, `bans` and `oddities` keep account of what a client tries the relay with.
"""
