"""Speaking to SparkPost: from a name and a list of ports to a message that has been answered.

`dial` finds a port that works, `smtp` makes an authenticated session of it, `session` runs transactions on it, `pool`
keeps sessions for the next message of the same login, and `channel` is all of that behind one method.
`http_api` is the other way, by the same contract; `assembly` builds both as the configuration says.
"""
