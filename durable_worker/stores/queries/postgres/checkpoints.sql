-- name: due_timers
SELECT run_id, seq, fires_at FROM checkpoints
WHERE status = 'pending' AND fires_at IS NOT NULL AND fires_at <= $1
ORDER BY fires_at, run_id, seq
LIMIT $2;

-- name: next_timer
SELECT min(fires_at) FROM checkpoints WHERE status = 'pending' AND fires_at IS NOT NULL;

-- name: next_wakes
SELECT run_id, min(fires_at) FROM checkpoints
WHERE run_id = ANY ($1::text[]) AND status = 'pending' AND fires_at IS NOT NULL
GROUP BY run_id;

-- name: waiters
SELECT run_id, seq FROM checkpoints
WHERE status = 'pending' AND kind = 'signal' AND namespace = $2 AND name = $1
ORDER BY enqueued_at, run_id, seq
LIMIT $3;
