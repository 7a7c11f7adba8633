-- name: runs
SELECT
    id, workflow, version, namespace, worker_partition, status, input, output, error, parent_run_id,
    parent_seq, tags, search_attributes, created_at, updated_at, turn_no, task_id, is_dirty,
    recoveries, ordered
FROM durable_runs WHERE id > ? OR id = ? ORDER BY id LIMIT ?;

-- name: checkpoints
SELECT
    run_id, seq, kind, name, status, input, output, error, attempt, retry, worker_partition,
    fires_at, enqueued_at, started_at, finished_at, events, parallel_group, recoveries, resolved_as
FROM durable_checkpoints WHERE (run_id = ? AND seq > ?) OR run_id > ? ORDER BY run_id, seq LIMIT ?;

-- name: signals
SELECT id, namespace, name, payload, received_at, consumed_at
FROM durable_signals WHERE id > ? OR id = ? ORDER BY id LIMIT ?;

-- name: outbox
SELECT message, run_id, seq, attempt
FROM durable_outbox WHERE message > ? OR message = ? ORDER BY message LIMIT ?;

-- name: inbox
SELECT id, body FROM durable_inbox WHERE id > ? OR id = ? ORDER BY id LIMIT ?;

-- name: dead_letters
SELECT
    id, received_at, type, message_id, reason, body, headers, queue, protocol, namespace, run_id,
    seq, task_id, size, last_seq, redriven_at, redrives
FROM durable_dead_letters WHERE id > ? OR id = ? ORDER BY id LIMIT ?;
