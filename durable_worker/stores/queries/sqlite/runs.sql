-- name: put_run
INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    workflow = excluded.workflow,
    version = excluded.version,
    namespace = excluded.namespace,
    partition = excluded.partition,
    status = excluded.status,
    input = excluded.input,
    output = excluded.output,
    error = excluded.error,
    parent_run_id = excluded.parent_run_id,
    parent_seq = excluded.parent_seq,
    tags = excluded.tags,
    search_attributes = excluded.search_attributes,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    turn_no = excluded.turn_no,
    task_id = excluded.task_id,
    is_dirty = excluded.is_dirty,
    recoveries = excluded.recoveries,
    ordered = excluded.ordered;

-- name: get_run
SELECT * FROM runs WHERE id = ?;

-- name: has_run
SELECT 1 FROM runs WHERE id = ?;

-- name: list_runs
-- Labels as JSON spells them, since text out of JSON ends where a NUL is in it. What is taken out by
-- one path is such text; what is taken out by two is JSON.
SELECT * FROM runs
WHERE (:workflow IS NULL OR workflow = :workflow)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
    AND (:labels IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:labels) AS wanted
        WHERE instr(runs.tags, wanted.value) = 0
            OR '[' || wanted.value || ',' || wanted.value || ']' NOT IN (
                SELECT json_extract(runs.tags, fullkey, fullkey) FROM json_each(runs.tags)
            )
    ))
    AND (:namespace IS NULL OR namespace = :namespace)
    AND (:after_created IS NULL OR (created_at, id) < (:after_created, :after_id))
ORDER BY created_at DESC, id DESC
LIMIT :limit OFFSET :offset;

-- name: count_runs
SELECT status, workflow, count(*) FROM runs
WHERE (:workflow IS NULL OR workflow = :workflow)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
    AND (:labels IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:labels) AS wanted
        WHERE instr(runs.tags, wanted.value) = 0
            OR '[' || wanted.value || ',' || wanted.value || ']' NOT IN (
                SELECT json_extract(runs.tags, fullkey, fullkey) FROM json_each(runs.tags)
            )
    ))
    AND (:namespace IS NULL OR namespace = :namespace)
GROUP BY status, workflow;

-- name: turns_out
SELECT id, task_id FROM runs
WHERE status NOT IN ('completed', 'failed', 'cancelled', 'dead') AND task_id IS NOT NULL
ORDER BY id;

-- name: unserved_runs
SELECT * FROM runs
WHERE status = 'pending' AND version IS NULL AND workflow = ?
ORDER BY created_at, id
LIMIT ?;

-- name: unserved_workflows
SELECT DISTINCT workflow FROM runs
WHERE status = 'pending' AND version IS NULL
ORDER BY workflow;
