-- name: put_signal
INSERT OR REPLACE INTO signals VALUES (?, ?, ?, ?, ?, ?);

-- name: get_signal
SELECT * FROM signals WHERE id = ?;

-- name: buffered_signals
SELECT * FROM signals
WHERE consumed_at IS NULL AND namespace = ? AND name = ?
ORDER BY received_at, id
LIMIT ?;

-- name: forget_signals
DELETE FROM signals WHERE consumed_at IS NOT NULL AND consumed_at < ?;

-- name: put_outbox
INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?);

-- name: remove_outbox
DELETE FROM outbox WHERE key IN (SELECT value FROM json_each(?));

-- name: remove_outbox_row
DELETE FROM outbox WHERE key = ?;

-- name: get_outbox
SELECT key, run_id, seq, attempt FROM outbox ORDER BY key;

-- name: put_inbox
INSERT INTO inbox (body) VALUES (?);

-- name: remove_inbox
DELETE FROM inbox WHERE id IN (SELECT value FROM json_each(?));

-- name: get_inbox
SELECT id, body FROM inbox WHERE id > ? ORDER BY id LIMIT ?;

-- name: put_dead_letter
INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    received_at = excluded.received_at,
    type = excluded.type,
    message_id = excluded.message_id,
    reason = excluded.reason,
    body = excluded.body,
    headers = excluded.headers,
    queue = excluded.queue,
    protocol = excluded.protocol,
    namespace = excluded.namespace,
    run_id = excluded.run_id,
    seq = excluded.seq,
    task_id = excluded.task_id,
    size = excluded.size,
    last_seq = excluded.last_seq,
    redriven_at = excluded.redriven_at,
    redrives = max(dead_letters.redrives, excluded.redrives);

-- name: get_dead_letter
SELECT * FROM dead_letters WHERE id = ?;

-- name: list_dead_letters
SELECT id, received_at, type, message_id, reason, x'', headers, queue, protocol, namespace, run_id,
    seq, task_id, size, last_seq, redriven_at, redrives
FROM dead_letters
WHERE (:namespace IS NULL OR namespace = :namespace)
    AND (:run_id IS NULL OR run_id = :run_id)
    AND (:after IS NULL
        OR (received_at, id) < (SELECT received_at, id FROM dead_letters WHERE id = :after))
ORDER BY received_at DESC, id DESC
LIMIT :limit;

-- name: forget_dead_letters
DELETE FROM dead_letters
WHERE received_at < ?
    OR id IN (SELECT id FROM dead_letters ORDER BY received_at DESC, id DESC LIMIT -1 OFFSET ?);
