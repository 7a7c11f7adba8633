-- name: get_lease
SELECT token, instance_id, host, machine, pid, process_start, expires_at, is_released
FROM lease WHERE id = 1;

-- name: take_lease
INSERT OR REPLACE INTO lease VALUES (1, ?, ?, ?, ?, ?, ?, ?, 0);

-- name: is_lease_held
SELECT 1 FROM lease WHERE id = 1 AND token = ? AND is_released = 0;

-- name: renew_lease
UPDATE lease SET expires_at = ? WHERE id = 1 AND token = ? AND is_released = 0;

-- name: release_lease
UPDATE lease SET is_released = 1 WHERE id = 1 AND token = ?;

-- name: has_schema
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version';

-- name: is_empty
SELECT count(*) = 0 FROM sqlite_schema;

-- name: schema_version
SELECT max(version) FROM schema_version;
