-- name: lock_lease
SELECT token, instance_id, host, machine, pid, process_start, expires_at, is_released
FROM lease WHERE id = 1 FOR UPDATE;

-- name: take_lease
UPDATE lease SET
    token = $1, writer = 0, instance_id = $2, host = $3, machine = $4, pid = $5,
    process_start = $6, expires_at = $7, is_released = false
WHERE id = 1;

-- name: renew_lease
UPDATE lease SET expires_at = $2 WHERE id = 1 AND token = $1 AND NOT is_released
RETURNING 1;

-- name: release_lease
UPDATE lease SET is_released = true WHERE id = 1 AND token = $1;

-- name: fence
UPDATE lease SET writer = writer + 1 WHERE id = 1 AND token = $1 AND NOT is_released
RETURNING writer;

-- name: snapshot
SELECT pg_current_snapshot()::text;
