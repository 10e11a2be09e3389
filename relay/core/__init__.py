"""The nouns of the relay: replies, envelopes, messages, outcomes, logins, and the seams between rooms.

Values and pure functions only. Nothing here does I/O, knows asyncio or reads a clock. Values that
are made for each message are NamedTuples: a frozen dataclass takes four times as long to make.
"""
