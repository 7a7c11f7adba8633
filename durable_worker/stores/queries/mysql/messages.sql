-- name: put_signal
INSERT INTO durable_signals (id, namespace, name, payload, received_at, consumed_at) VALUES ?
ON DUPLICATE KEY UPDATE
    namespace = VALUES(namespace),
    name = VALUES(name),
    payload = VALUES(payload),
    received_at = VALUES(received_at),
    consumed_at = VALUES(consumed_at);

-- name: get_signal
SELECT id, namespace, name, payload, received_at, consumed_at FROM durable_signals WHERE id = ?;

-- name: buffered_signals
SELECT id, namespace, name, payload, received_at, consumed_at
FROM durable_signals FORCE INDEX (signals_buffered)
WHERE namespace = ? AND name = ? AND consumed_at IS NULL
ORDER BY received_at, id
LIMIT ?;

-- name: forget_signals
DELETE FROM durable_signals WHERE consumed_at < ?;

-- name: put_outbox
INSERT INTO durable_outbox (message, run_id, seq, attempt) VALUES ?
ON DUPLICATE KEY UPDATE
    run_id = VALUES(run_id), seq = VALUES(seq), attempt = VALUES(attempt);

-- name: remove_outbox
DELETE FROM durable_outbox WHERE message IN ?;

-- name: get_outbox
SELECT message, run_id, seq, attempt FROM durable_outbox ORDER BY message;

-- name: take_inbox_ids
UPDATE durable_inbox_head SET last = LAST_INSERT_ID(last) + ? WHERE id = 1;

-- name: inbox_id
LAST_INSERT_ID() + ?;

-- name: put_inbox
INSERT INTO durable_inbox (id, body) VALUES ?;

-- name: last_inbox_id
SELECT last FROM durable_inbox_head WHERE id = 1;

-- name: remove_inbox
DELETE FROM durable_inbox WHERE id IN ?;

-- name: get_inbox
SELECT id, body FROM durable_inbox WHERE id > ? ORDER BY id LIMIT ?;

-- name: put_dead_letter
INSERT INTO durable_dead_letters (
    id, received_at, type, message_id, reason, body, headers, queue, protocol, namespace, run_id,
    seq, task_id, size, last_seq, redriven_at, redrives
) VALUES ?
ON DUPLICATE KEY UPDATE
    received_at = VALUES(received_at),
    type = VALUES(type),
    message_id = VALUES(message_id),
    reason = VALUES(reason),
    body = VALUES(body),
    headers = VALUES(headers),
    queue = VALUES(queue),
    protocol = VALUES(protocol),
    namespace = VALUES(namespace),
    run_id = VALUES(run_id),
    seq = VALUES(seq),
    task_id = VALUES(task_id),
    size = VALUES(size),
    last_seq = VALUES(last_seq),
    redriven_at = VALUES(redriven_at),
    redrives = GREATEST(redrives, VALUES(redrives));

-- name: get_dead_letter
SELECT
    id, received_at, type, message_id, reason, body, headers, queue, protocol, namespace, run_id,
    seq, task_id, size, last_seq, redriven_at, redrives
FROM durable_dead_letters WHERE id = ?;

-- name: list_dead_letters
SELECT
    letters.id, letters.received_at, letters.type, letters.message_id, letters.reason, '',
    letters.headers, letters.queue, letters.protocol, letters.namespace, letters.run_id,
    letters.seq, letters.task_id, letters.size, letters.last_seq, letters.redriven_at,
    letters.redrives;

-- name: first_surplus
SELECT received_at, id FROM durable_dead_letters ORDER BY received_at DESC, id DESC LIMIT 1 OFFSET ?;

-- name: forget_older
DELETE FROM durable_dead_letters WHERE received_at < ?;

-- name: forget_surplus
DELETE FROM durable_dead_letters
WHERE received_at < ? OR (received_at = ? AND id <= ?);
