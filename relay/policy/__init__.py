"""Whose mail is it, may it pass, what is added to it: decisions about one message, without I/O.

`identity` finds the rule that a session and its reverse-path fall under, and the login that follows from it;
`admission` refuses what the rule does not allow; `content` makes the octets that go on. `patterns` is how rules name
senders and logins.
"""
