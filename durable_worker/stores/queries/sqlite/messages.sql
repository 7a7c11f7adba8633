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
DELETE FROM outbox WHERE key = ?;

-- name: get_outbox
SELECT key, run_id, seq, attempt FROM outbox ORDER BY key;

-- name: put_inbox
INSERT INTO inbox (body) VALUES (?);

-- name: remove_inbox
DELETE FROM inbox WHERE id = ?;

-- name: get_inbox
SELECT id, body FROM inbox WHERE id > ? ORDER BY id LIMIT ?;

-- name: put_dead_letter
INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: get_dead_letters
SELECT * FROM dead_letters ORDER BY received_at DESC, id DESC LIMIT ?;
