CREATE TABLE IF NOT EXISTS durable_lease (
    id BIGINT NOT NULL PRIMARY KEY,
    token BIGINT NOT NULL,
    writer BIGINT NOT NULL,
    instance_id VARBINARY(768) NOT NULL,
    host VARBINARY(768) NOT NULL,
    machine VARBINARY(768) NOT NULL,
    pid BIGINT NOT NULL,
    process_start VARBINARY(768),
    expires_at BIGINT NOT NULL,
    is_released BOOLEAN NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

INSERT INTO durable_lease VALUES (1, 0, 0, '', '', '', 0, NULL, 0, 1)
ON DUPLICATE KEY UPDATE id = 1;

CREATE TABLE IF NOT EXISTS durable_runs (
    id VARBINARY(768) NOT NULL PRIMARY KEY,
    workflow VARBINARY(768) NOT NULL,
    version VARBINARY(768),
    namespace VARBINARY(255) NOT NULL,
    worker_partition VARBINARY(768),
    status VARBINARY(16) NOT NULL,
    input LONGBLOB,
    output LONGBLOB,
    error LONGBLOB,
    parent_run_id VARBINARY(768),
    parent_seq BIGINT,
    tags LONGBLOB NOT NULL,
    search_attributes LONGBLOB,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    turn_no BIGINT NOT NULL,
    task_id VARBINARY(1024),
    is_dirty BOOLEAN NOT NULL,
    recoveries BIGINT NOT NULL,
    ordered BIGINT,
    is_turn_out BOOLEAN,
    is_unserved BOOLEAN,
    KEY runs_by_age (created_at, id),
    KEY runs_of_namespace (namespace, created_at, id),
    KEY runs_by_status (namespace, status, created_at, id),
    KEY runs_by_workflow (namespace, workflow, status, created_at, id),
    KEY runs_turn_out (is_turn_out, id),
    KEY runs_unserved (is_unserved, workflow, created_at, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS durable_run_tags (
    namespace VARBINARY(255) NOT NULL,
    tag VARBINARY(768) NOT NULL,
    created_at BIGINT NOT NULL,
    id VARBINARY(768) NOT NULL,
    PRIMARY KEY (namespace, tag, created_at, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS durable_checkpoints (
    run_id VARBINARY(768) NOT NULL,
    seq BIGINT NOT NULL,
    kind VARBINARY(16) NOT NULL,
    name VARBINARY(768) NOT NULL,
    status VARBINARY(16) NOT NULL,
    input LONGBLOB,
    output LONGBLOB,
    error LONGBLOB,
    attempt BIGINT NOT NULL,
    retry LONGBLOB,
    worker_partition VARBINARY(768),
    fires_at BIGINT,
    enqueued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    events LONGBLOB,
    parallel_group VARBINARY(768),
    recoveries BIGINT NOT NULL,
    resolved_as BIGINT,
    due_at BIGINT,
    is_step_out BOOLEAN,
    waits_in VARBINARY(255),
    PRIMARY KEY (run_id, seq),
    KEY checkpoints_due (due_at, run_id, seq),
    KEY checkpoints_waking (run_id, due_at),
    KEY checkpoints_step_out (is_step_out, run_id, seq),
    KEY checkpoints_waiting (waits_in, name, enqueued_at, run_id, seq)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS durable_signals (
    id VARBINARY(1024) NOT NULL PRIMARY KEY,
    namespace VARBINARY(255) NOT NULL,
    name VARBINARY(768) NOT NULL,
    payload LONGBLOB,
    received_at BIGINT NOT NULL,
    consumed_at BIGINT,
    KEY signals_buffered (namespace, name, consumed_at, received_at, id),
    KEY signals_consumed (consumed_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS durable_outbox (
    message VARBINARY(1024) NOT NULL PRIMARY KEY,
    run_id VARBINARY(768) NOT NULL,
    seq BIGINT,
    attempt BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS durable_inbox (
    id BIGINT NOT NULL PRIMARY KEY,
    body LONGBLOB NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS durable_inbox_head (
    id BIGINT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

INSERT INTO durable_inbox_head VALUES (1, 0) ON DUPLICATE KEY UPDATE id = 1;

CREATE TABLE IF NOT EXISTS durable_dead_letters (
    id VARBINARY(768) NOT NULL PRIMARY KEY,
    received_at BIGINT NOT NULL,
    type LONGBLOB,
    message_id LONGBLOB,
    reason LONGBLOB NOT NULL,
    body LONGBLOB NOT NULL,
    headers LONGBLOB NOT NULL,
    queue LONGBLOB,
    protocol BIGINT,
    namespace VARBINARY(255) NOT NULL,
    run_id VARBINARY(768),
    seq BIGINT,
    task_id LONGBLOB,
    size BIGINT NOT NULL,
    last_seq BIGINT,
    redriven_at BIGINT,
    redrives BIGINT NOT NULL,
    KEY dead_letters_by_age (received_at, id),
    KEY dead_letters_of_namespace (namespace, received_at, id),
    KEY dead_letters_of_run (run_id, received_at, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
