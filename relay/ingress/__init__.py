"""How mail enters: sockets, the SMTP dialogue, the content, and the hinge where responsibility is taken.

The octets of one session go through `session` (the transport's side) into `dialogue` (sans-IO: octets in, replies and
steps out), which asks `transaction` what to answer to MAIL, RCPT and DATA and lets `data` read the content. A complete
message goes to `reception`, which applies the policy and hands it to the intake.
"""
