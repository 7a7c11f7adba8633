CREATE TABLE lease (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    token BIGINT NOT NULL,
    writer BIGINT NOT NULL,
    instance_id TEXT NOT NULL,
    host TEXT NOT NULL,
    machine TEXT NOT NULL,
    pid BIGINT NOT NULL,
    process_start TEXT,
    expires_at BIGINT NOT NULL,
    is_released BOOLEAN NOT NULL
);

INSERT INTO lease VALUES (1, 0, 0, '', '', '', 0, NULL, 0, true);

CREATE TABLE members (
    token BIGINT PRIMARY KEY,
    writer BIGINT NOT NULL,
    instance_id TEXT NOT NULL,
    host TEXT NOT NULL,
    machine TEXT NOT NULL,
    pid BIGINT NOT NULL,
    process_start TEXT,
    expires_at BIGINT NOT NULL
);

CREATE TABLE runs (
    id TEXT COLLATE "C" PRIMARY KEY,
    workflow TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C",
    namespace TEXT COLLATE "C" NOT NULL,
    partition TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    input BYTEA,
    output BYTEA,
    error BYTEA,
    parent_run_id TEXT COLLATE "C",
    parent_seq BIGINT,
    tags TEXT[] COLLATE "C" NOT NULL,
    search_attributes BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    turn_no BIGINT NOT NULL,
    task_id TEXT COLLATE "C",
    is_dirty BOOLEAN NOT NULL,
    recoveries BIGINT NOT NULL,
    revision BIGINT NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX runs_by_age ON runs (created_at, id);
CREATE INDEX runs_of_namespace ON runs (namespace, created_at, id);
CREATE INDEX runs_by_status ON runs (namespace, status, created_at, id);
CREATE INDEX runs_by_workflow ON runs (namespace, workflow, status, created_at, id);
CREATE INDEX runs_alive ON runs (id)
    WHERE status NOT IN ('completed', 'failed', 'cancelled', 'dead');
CREATE INDEX runs_unserved ON runs (workflow, created_at, id)
    WHERE status = 'pending' AND version IS NULL;

CREATE TABLE run_tags (
    namespace TEXT COLLATE "C" NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, tag, created_at, id)
);

CREATE TABLE checkpoints (
    run_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    input BYTEA,
    output BYTEA,
    error BYTEA,
    attempt BIGINT NOT NULL,
    retry BYTEA,
    partition TEXT COLLATE "C",
    fires_at BIGINT,
    enqueued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    events BYTEA,
    parallel_group TEXT COLLATE "C",
    recoveries BIGINT NOT NULL,
    namespace TEXT COLLATE "C",
    operator BIGINT,
    PRIMARY KEY (run_id, seq)
);

CREATE INDEX checkpoints_due ON checkpoints (fires_at, run_id, seq)
    WHERE status = 'pending' AND fires_at IS NOT NULL;
CREATE INDEX checkpoints_due_at ON checkpoints (operator, fires_at)
    WHERE status = 'pending' AND fires_at IS NOT NULL;
CREATE INDEX checkpoints_waking ON checkpoints (run_id, fires_at)
    WHERE status = 'pending' AND fires_at IS NOT NULL;
CREATE INDEX checkpoints_waiting ON checkpoints (namespace, name, enqueued_at, run_id, seq)
    WHERE status = 'pending' AND kind = 'signal';

CREATE TABLE signals (
    id TEXT COLLATE "C" PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    payload BYTEA,
    received_at BIGINT NOT NULL,
    consumed_at BIGINT
);

CREATE INDEX signals_buffered ON signals (namespace, name, received_at, id)
    WHERE consumed_at IS NULL;
CREATE INDEX signals_consumed ON signals (consumed_at)
    WHERE consumed_at IS NOT NULL;

CREATE TABLE outbox (
    key TEXT COLLATE "C" PRIMARY KEY,
    run_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT,
    attempt BIGINT NOT NULL,
    operator BIGINT
);

CREATE INDEX outbox_of_operator ON outbox (operator);

CREATE TABLE inbox (
    id BIGINT PRIMARY KEY,
    body BYTEA NOT NULL,
    operator BIGINT
);

CREATE TABLE inbox_head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    last BIGINT NOT NULL
);

INSERT INTO inbox_head VALUES (1, 0);

CREATE TABLE dead_letters (
    id TEXT COLLATE "C" PRIMARY KEY,
    received_at BIGINT NOT NULL,
    type TEXT COLLATE "C",
    message_id TEXT COLLATE "C",
    reason TEXT NOT NULL,
    body BYTEA NOT NULL,
    headers BYTEA NOT NULL,
    queue TEXT COLLATE "C",
    protocol BIGINT,
    namespace TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C",
    seq BIGINT,
    task_id TEXT COLLATE "C",
    size BIGINT NOT NULL,
    last_seq BIGINT,
    redriven_at BIGINT,
    redrives BIGINT NOT NULL
);

CREATE INDEX dead_letters_by_age ON dead_letters (received_at, id);
CREATE INDEX dead_letters_of_namespace ON dead_letters (namespace, received_at, id);
CREATE INDEX dead_letters_of_run ON dead_letters (run_id, received_at, id)
    WHERE run_id IS NOT NULL;
