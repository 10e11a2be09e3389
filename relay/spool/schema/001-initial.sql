-- The spool: every accepted message from its 250 to its last reply, and the ledger of what became of it.
--
-- Times called due, expires, lease and finished are on the spool's own clock (relay/spool/clock.py), which no clock jump
-- moves. Times called received, settled and at are by the clock on the wall, for people.

CREATE TABLE meta (
    name   TEXT PRIMARY KEY,
    value  REAL NOT NULL
) WITHOUT ROWID;

-- All mail that travels under one login. `queued` lets the claim skip the lanes where nothing waits.
CREATE TABLE lane (
    id          INTEGER PRIMARY KEY,
    credential  TEXT NOT NULL,
    subaccount  INTEGER NOT NULL,                   -- 0 is none
    queued      INTEGER NOT NULL DEFAULT 0,         -- kept by triggers
    UNIQUE (credential, subaccount)
);

CREATE TABLE message (
    id            INTEGER PRIMARY KEY,
    queue_id      TEXT NOT NULL UNIQUE,
    state         TEXT NOT NULL,                    -- relay/core/lifecycle.py: State
    lane          INTEGER NOT NULL REFERENCES lane,
    identity      TEXT NOT NULL,
    reverse_path  TEXT NOT NULL,                    -- empty is the null reverse-path
    body_type     TEXT,                             -- ESMTP parameters of MAIL
    ret           TEXT,
    envid         TEXT,
    size          INTEGER NOT NULL,
    longest_line  INTEGER NOT NULL,
    eight_bit     INTEGER NOT NULL,
    received      REAL NOT NULL,
    expires       REAL NOT NULL,
    max_age       REAL NOT NULL,                    -- starts anew when an operator lets the message go again
    due           REAL NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,       -- those that count for the schedule
    tries         INTEGER NOT NULL DEFAULT 0,       -- all of them
    lease         REAL,                             -- ACTIVE: until when the claim holds
    maybe_twice   INTEGER NOT NULL DEFAULT 0,
    wish          TEXT,                             -- ACTIVE: what the operator wants when the attempt is over
    reason        TEXT,                             -- why it waits, is held or has failed
    finished      REAL                              -- FAILED, DELIVERED, DELETED: since when
);

-- Serves the lists by state and the oldest message of a state; within a state, rows are in the order of arrival.
CREATE INDEX message_state ON message (state);
-- Serves the claim: the oldest due messages of a lane.
CREATE INDEX message_due ON message (lane, due) WHERE state = 'queued';
-- Serves the search for what has grown too old behind a closed circuit.
CREATE INDEX message_expires ON message (lane, expires) WHERE state = 'queued';
-- Serves the removal of what has been kept long enough.
CREATE INDEX message_finished ON message (state, finished) WHERE finished IS NOT NULL;

CREATE TABLE recipient (
    message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    number      INTEGER NOT NULL,                   -- its place in the envelope
    address     TEXT NOT NULL,
    notify      TEXT,                               -- RFC 3461
    orcpt       TEXT,
    fate        TEXT NOT NULL DEFAULT 'pending',    -- relay/core/lifecycle.py: Fate
    reply       TEXT,                               -- the last one
    message_id  TEXT,                               -- SparkPost's own
    settled     REAL,
    PRIMARY KEY (message, number)
) WITHOUT ROWID;

-- What some recipients got to hear in one attempt.
CREATE TABLE attempt (
    message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    line        INTEGER NOT NULL,
    at          REAL NOT NULL,
    endpoint    TEXT,
    outcome     TEXT NOT NULL,
    phase       TEXT NOT NULL,
    reply       TEXT NOT NULL,
    recipients  TEXT NOT NULL,                      -- their numbers, as a JSON list
    PRIMARY KEY (message, number, line)
) WITHOUT ROWID;

-- Gone as soon as nobody needs it. A body above 128 KB is a file beside the database, named by the queue id.
CREATE TABLE content (
    message  INTEGER PRIMARY KEY REFERENCES message ON DELETE CASCADE,
    header   BLOB NOT NULL,
    body     BLOB,                                  -- NULL: in the file
    length   INTEGER NOT NULL,                      -- of the body, in octets
    crc      INTEGER NOT NULL                       -- CRC-32 of header and body
);

-- How many messages are in each state, so that nobody ever has to count them.
CREATE TABLE tally (
    state     TEXT PRIMARY KEY,
    messages  INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO tally VALUES ('queued', 0), ('active', 0), ('held', 0), ('failed', 0), ('delivered', 0), ('deleted', 0);

CREATE TRIGGER message_arrives AFTER INSERT ON message BEGIN
    UPDATE tally SET messages = messages + 1 WHERE state = new.state;
    UPDATE lane SET queued = queued + 1 WHERE id = new.lane AND new.state = 'queued';
END;

CREATE TRIGGER message_moves AFTER UPDATE OF state ON message WHEN new.state != old.state BEGIN
    UPDATE tally SET messages = messages - 1 WHERE state = old.state;
    UPDATE tally SET messages = messages + 1 WHERE state = new.state;
END;

CREATE TRIGGER message_queues AFTER UPDATE OF state, lane ON message
WHEN (old.state = 'queued') != (new.state = 'queued') OR old.lane != new.lane BEGIN
    UPDATE lane SET queued = queued - 1 WHERE id = old.lane AND old.state = 'queued';
    UPDATE lane SET queued = queued + 1 WHERE id = new.lane AND new.state = 'queued';
END;

CREATE TRIGGER message_goes AFTER DELETE ON message BEGIN
    UPDATE tally SET messages = messages - 1 WHERE state = old.state;
    UPDATE lane SET queued = queued - 1 WHERE id = old.lane AND old.state = 'queued';
END;
