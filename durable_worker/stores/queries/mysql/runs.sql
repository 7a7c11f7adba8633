-- name: put_run
INSERT INTO durable_runs (
    id, workflow, version, namespace, worker_partition, status, input, output, error, parent_run_id,
    parent_seq, tags, search_attributes, created_at, updated_at, turn_no, task_id, is_dirty,
    recoveries, ordered, is_turn_out, is_unserved
) VALUES ?
ON DUPLICATE KEY UPDATE
    workflow = VALUES(workflow),
    version = VALUES(version),
    namespace = VALUES(namespace),
    worker_partition = VALUES(worker_partition),
    status = VALUES(status),
    input = VALUES(input),
    output = VALUES(output),
    error = VALUES(error),
    parent_run_id = VALUES(parent_run_id),
    parent_seq = VALUES(parent_seq),
    tags = VALUES(tags),
    search_attributes = VALUES(search_attributes),
    created_at = VALUES(created_at),
    updated_at = VALUES(updated_at),
    turn_no = VALUES(turn_no),
    task_id = VALUES(task_id),
    is_dirty = VALUES(is_dirty),
    recoveries = VALUES(recoveries),
    ordered = VALUES(ordered),
    is_turn_out = VALUES(is_turn_out),
    is_unserved = VALUES(is_unserved);

-- name: put_tag
-- A row that a run no longer bears out is passed over by whoever reads it.
INSERT INTO durable_run_tags (namespace, tag, created_at, id) VALUES ?
ON DUPLICATE KEY UPDATE created_at = VALUES(created_at);

-- name: tags_of_runs
SELECT namespace, tags, created_at, id FROM durable_runs WHERE id IN ?;

-- name: remove_tag
DELETE FROM durable_run_tags WHERE namespace = ? AND tag = ? AND created_at = ? AND id = ?;

-- name: get_runs
SELECT
    id, workflow, version, namespace, worker_partition, status, input, output, error, parent_run_id,
    parent_seq, tags, search_attributes, created_at, updated_at, turn_no, task_id, is_dirty,
    recoveries, ordered
FROM durable_runs WHERE id IN ?;

-- name: unserved_runs
SELECT
    id, workflow, version, namespace, worker_partition, status, input, output, error, parent_run_id,
    parent_seq, tags, search_attributes, created_at, updated_at, turn_no, task_id, is_dirty,
    recoveries, ordered
FROM durable_runs FORCE INDEX (runs_unserved)
WHERE is_unserved = 1 AND workflow = ?
ORDER BY created_at, id
LIMIT ?;

-- name: unserved_workflows
SELECT DISTINCT workflow FROM durable_runs FORCE INDEX (runs_unserved)
WHERE is_unserved = 1
ORDER BY workflow;

-- name: turns_out
SELECT id, task_id FROM durable_runs FORCE INDEX (runs_turn_out)
WHERE is_turn_out = 1
ORDER BY id;

-- name: namespaces
SELECT DISTINCT namespace FROM durable_runs FORCE INDEX (runs_by_status);

-- name: page_of_runs
SELECT STRAIGHT_JOIN
    runs.id, runs.workflow, runs.version, runs.namespace, runs.worker_partition, runs.status,
    runs.input, runs.output, runs.error, runs.parent_run_id, runs.parent_seq, runs.tags,
    runs.search_attributes, runs.created_at, runs.updated_at, runs.turn_no, runs.task_id,
    runs.is_dirty, runs.recoveries, runs.ordered
FROM (?) AS page JOIN durable_runs AS runs ON runs.id = page.id;
