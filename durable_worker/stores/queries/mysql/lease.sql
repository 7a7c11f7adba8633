-- name: lock_lease
SELECT token, instance_id, host, machine, pid, process_start, expires_at, is_released
FROM durable_lease WHERE id = 1 FOR UPDATE;

-- name: take_lease
UPDATE durable_lease SET
    token = ?, writer = 0, instance_id = ?, host = ?, machine = ?, pid = ?, process_start = ?,
    expires_at = ?, is_released = 0
WHERE id = 1;

-- name: renew_lease
UPDATE durable_lease SET expires_at = ? WHERE id = 1 AND token = ? AND NOT is_released;

-- name: release_lease
UPDATE durable_lease SET is_released = 1 WHERE id = 1 AND token = ?;

-- name: fence
UPDATE durable_lease SET writer = writer + 1 WHERE id = 1 AND token = ? AND NOT is_released;

-- name: writer
SELECT writer FROM durable_lease WHERE id = 1;

-- name: hold_writer
UPDATE durable_lease SET is_released = IF(token = ? AND writer = ? AND NOT is_released, 0, NULL)
WHERE id = 1;

-- name: hold_lease
UPDATE durable_lease SET is_released = IF(token = ? AND NOT is_released, 0, NULL) WHERE id = 1;

-- name: require_absent
UPDATE durable_lease SET expires_at = IF(
    EXISTS (SELECT 1 FROM durable_runs WHERE id IN ?), NULL, expires_at
) WHERE id = 1;

-- name: has_version_table
SELECT COUNT(*) FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = 'durable_schema_version';

-- name: schema_version
SELECT version_num FROM durable_schema_version;
