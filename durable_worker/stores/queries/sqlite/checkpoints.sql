-- name: put_checkpoint
INSERT OR REPLACE INTO checkpoints
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: remove_checkpoint
DELETE FROM checkpoints WHERE run_id = ? AND seq = ?;

-- name: get_checkpoints
SELECT * FROM checkpoints WHERE run_id = ? ORDER BY seq;

-- name: due_timers
SELECT run_id, seq, fires_at FROM checkpoints
WHERE status = 'pending' AND fires_at IS NOT NULL AND fires_at <= ?
ORDER BY fires_at, run_id, seq
LIMIT ?;

-- name: next_timer
SELECT min(fires_at) FROM checkpoints WHERE status = 'pending' AND fires_at IS NOT NULL;

-- name: next_wake
SELECT min(fires_at) FROM checkpoints
WHERE run_id = ? AND status = 'pending' AND fires_at IS NOT NULL;

-- name: waiters
SELECT c.run_id, c.seq
FROM checkpoints AS c JOIN runs AS r ON r.id = c.run_id
WHERE c.status = 'pending' AND c.kind = 'signal' AND c.name = ? AND r.namespace = ?
ORDER BY c.enqueued_at, c.run_id, c.seq
LIMIT ?;

-- name: steps_out
SELECT c.run_id, c.seq, c.attempt, c.recoveries
FROM runs AS r JOIN checkpoints AS c ON c.run_id = r.id
WHERE r.status NOT IN ('completed', 'failed', 'cancelled', 'dead')
    AND c.status = 'pending' AND c.kind = 'call'
    AND (c.fires_at IS NULL OR c.error IS NULL)
ORDER BY c.run_id, c.seq;
