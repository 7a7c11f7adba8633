-- name: put_checkpoint
INSERT INTO durable_checkpoints (
    run_id, seq, kind, name, status, input, output, error, attempt, retry, worker_partition,
    fires_at, enqueued_at, started_at, finished_at, events, parallel_group, recoveries, resolved_as,
    due_at, is_step_out, waits_in
) VALUES ?
ON DUPLICATE KEY UPDATE
    kind = VALUES(kind),
    name = VALUES(name),
    status = VALUES(status),
    input = VALUES(input),
    output = VALUES(output),
    error = VALUES(error),
    attempt = VALUES(attempt),
    retry = VALUES(retry),
    worker_partition = VALUES(worker_partition),
    fires_at = VALUES(fires_at),
    enqueued_at = VALUES(enqueued_at),
    started_at = VALUES(started_at),
    finished_at = VALUES(finished_at),
    events = VALUES(events),
    parallel_group = VALUES(parallel_group),
    recoveries = VALUES(recoveries),
    resolved_as = VALUES(resolved_as),
    due_at = VALUES(due_at),
    is_step_out = VALUES(is_step_out),
    waits_in = VALUES(waits_in);

-- name: namespace_of_run
(SELECT namespace FROM durable_runs WHERE id = ?);

-- name: remove_checkpoint
DELETE FROM durable_checkpoints WHERE run_id = ? AND seq = ?;

-- name: get_checkpoints
SELECT
    run_id, seq, kind, name, status, input, output, error, attempt, retry, worker_partition,
    fires_at, enqueued_at, started_at, finished_at, events, parallel_group, recoveries, resolved_as
FROM durable_checkpoints WHERE run_id IN ?
ORDER BY run_id, seq;

-- name: due_timers
SELECT run_id, seq, due_at FROM durable_checkpoints FORCE INDEX (checkpoints_due)
WHERE due_at <= ?
ORDER BY due_at, run_id, seq
LIMIT ?;

-- name: next_timer
SELECT MIN(due_at) FROM durable_checkpoints;

-- name: next_wakes
SELECT run_id, MIN(due_at) FROM durable_checkpoints FORCE INDEX (checkpoints_waking)
WHERE run_id IN ? AND due_at IS NOT NULL
GROUP BY run_id;

-- name: waiters
SELECT run_id, seq FROM durable_checkpoints FORCE INDEX (checkpoints_waiting)
WHERE waits_in = ? AND name = ?
ORDER BY enqueued_at, run_id, seq
LIMIT ?;

-- name: steps_out
SELECT checkpoints.run_id, checkpoints.seq, checkpoints.attempt, checkpoints.recoveries
FROM durable_checkpoints AS checkpoints FORCE INDEX (checkpoints_step_out)
STRAIGHT_JOIN durable_runs AS runs ON runs.id = checkpoints.run_id
WHERE checkpoints.is_step_out = 1
    AND runs.status NOT IN ('completed', 'failed', 'cancelled', 'dead')
ORDER BY checkpoints.run_id, checkpoints.seq;
