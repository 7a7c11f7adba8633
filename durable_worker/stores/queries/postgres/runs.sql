-- name: load
SELECT runs AS run, NULL::checkpoints AS checkpoint
FROM runs WHERE id = ANY ($1::text[])
UNION ALL
(
    SELECT NULL::runs, checkpoints
    FROM checkpoints WHERE run_id = ANY ($1::text[])
    ORDER BY run_id, seq
);

-- name: unserved_runs
SELECT * FROM runs
WHERE status = 'pending' AND version IS NULL AND workflow = $1
ORDER BY created_at, id
LIMIT $2;

-- name: unserved_workflows
SELECT DISTINCT workflow FROM runs
WHERE status = 'pending' AND version IS NULL
ORDER BY workflow;

-- name: turns_out
SELECT id, task_id FROM runs
WHERE status NOT IN ('completed', 'failed', 'cancelled', 'dead') AND task_id IS NOT NULL
ORDER BY id;

-- name: steps_out
SELECT checkpoints.run_id, checkpoints.seq, checkpoints.attempt, checkpoints.recoveries
FROM runs JOIN checkpoints ON checkpoints.run_id = runs.id
WHERE runs.status NOT IN ('completed', 'failed', 'cancelled', 'dead')
    AND checkpoints.status = 'pending' AND kind = 'call'
    AND (fires_at IS NULL OR checkpoints.error IS NULL)
ORDER BY checkpoints.run_id, checkpoints.seq;
