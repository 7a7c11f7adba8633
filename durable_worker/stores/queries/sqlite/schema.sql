CREATE TABLE schema_version (version INTEGER NOT NULL);

CREATE TABLE lease (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    token INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    host TEXT NOT NULL,
    machine TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_start TEXT,
    expires_at INTEGER NOT NULL,
    is_released INTEGER NOT NULL
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    workflow TEXT NOT NULL,
    version TEXT,
    namespace TEXT NOT NULL,
    partition TEXT,
    status TEXT NOT NULL,
    input BLOB,
    output BLOB,
    error BLOB,
    parent_run_id TEXT,
    parent_seq INTEGER,
    tags TEXT NOT NULL,
    search_attributes BLOB,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    turn_no INTEGER NOT NULL,
    task_id TEXT,
    is_dirty INTEGER NOT NULL,
    recoveries INTEGER NOT NULL,
    ordered INTEGER
);

CREATE INDEX runs_by_age ON runs (created_at, id);
CREATE INDEX runs_alive ON runs (id)
    WHERE status NOT IN ('completed', 'failed', 'cancelled', 'dead');
CREATE INDEX runs_unserved ON runs (workflow, created_at)
    WHERE status = 'pending' AND version IS NULL;

CREATE TABLE checkpoints (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    input BLOB,
    output BLOB,
    error BLOB,
    attempt INTEGER NOT NULL,
    retry BLOB,
    partition TEXT,
    fires_at INTEGER,
    enqueued_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    events BLOB,
    parallel_group TEXT,
    recoveries INTEGER NOT NULL,
    resolved_as INTEGER,
    PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;

CREATE INDEX checkpoints_due ON checkpoints (fires_at)
    WHERE status = 'pending' AND fires_at IS NOT NULL;
CREATE INDEX checkpoints_waiting ON checkpoints (name, enqueued_at)
    WHERE status = 'pending' AND kind = 'signal';

CREATE TABLE signals (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    payload BLOB,
    received_at INTEGER NOT NULL,
    consumed_at INTEGER
) WITHOUT ROWID;

CREATE INDEX signals_buffered ON signals (namespace, name, received_at)
    WHERE consumed_at IS NULL;
CREATE INDEX signals_consumed ON signals (consumed_at)
    WHERE consumed_at IS NOT NULL;

CREATE TABLE outbox (
    key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    seq INTEGER,
    attempt INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
);

CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY,
    received_at INTEGER NOT NULL,
    type TEXT,
    message_id TEXT,
    reason TEXT NOT NULL,
    body BLOB NOT NULL,
    headers BLOB NOT NULL,
    queue TEXT,
    protocol INTEGER,
    namespace TEXT NOT NULL DEFAULT 'default',
    run_id TEXT,
    seq INTEGER,
    task_id TEXT,
    size INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER,
    redriven_at INTEGER,
    redrives INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX dead_letters_by_age ON dead_letters (received_at, id);
CREATE INDEX dead_letters_of_run ON dead_letters (run_id) WHERE run_id IS NOT NULL;

INSERT INTO schema_version VALUES (3);
