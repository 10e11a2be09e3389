"""Where messages wait, durably: the spool in SQLite, one relay a file.

`opening` makes a spool, and `sqlite` is one: it keeps the promises of `core.ports.Spool`. `writer` commits and `reader`
reads, each in a thread of its own; `rows`, `claims` and `reading` are all of the SQL, `content` keeps what is too large
for a row, `database` opens the file and brings its schema up to date, `lock` keeps a second relay out, `health` and
`room` say when no mail can be taken in.
"""
