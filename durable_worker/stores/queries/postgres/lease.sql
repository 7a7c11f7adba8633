-- name: lock_lease
SELECT token, instance_id, host, machine, pid, process_start, expires_at, is_released
FROM lease WHERE id = 1 FOR UPDATE;

-- name: take_lease
UPDATE lease SET
    token = $1, writer = 0, instance_id = $2, host = $3, machine = $4, pid = $5,
    process_start = $6, expires_at = $7, is_released = false
WHERE id = 1;

-- name: renew_lease
WITH alone AS (
    UPDATE lease SET expires_at = $2 WHERE id = 1 AND token = $1 AND NOT is_released
    RETURNING 1
), one_of_many AS (
    -- By one clock for all: operators judge each other by it.
    UPDATE members SET expires_at = extract(epoch FROM clock_timestamp()) * 1000 + $3::bigint
    WHERE token = $1
    RETURNING 1
)
SELECT FROM alone UNION ALL SELECT FROM one_of_many;

-- name: release_lease
WITH alone AS (
    UPDATE lease SET is_released = true WHERE id = 1 AND token = $1
)
DELETE FROM members WHERE token = $1;

-- name: fence
WITH alone AS (
    UPDATE lease SET writer = writer + 1 WHERE id = 1 AND token = $1 AND NOT is_released
    RETURNING writer
), one_of_many AS (
    UPDATE members SET writer = writer + 1 WHERE token = $1
    RETURNING writer
)
SELECT writer FROM alone UNION ALL SELECT writer FROM one_of_many;

-- name: snapshot
SELECT pg_current_snapshot()::text;
