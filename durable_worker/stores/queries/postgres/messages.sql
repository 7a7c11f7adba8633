-- name: get_signal
SELECT * FROM signals WHERE id = $1;

-- name: buffered_signals
SELECT * FROM signals
WHERE consumed_at IS NULL AND namespace = $1 AND name = $2
ORDER BY received_at, id
LIMIT $3;

-- name: forget_signals
WITH held AS MATERIALIZED (
    SELECT FROM (SELECT FROM lease WHERE token = $1 AND NOT is_released FOR SHARE) AS alone
    UNION ALL
    SELECT FROM (SELECT FROM members WHERE token = $1 FOR SHARE) AS one_of_many
), forgotten AS (
    DELETE FROM signals USING held WHERE consumed_at IS NOT NULL AND consumed_at < $2
    RETURNING 1
)
SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM forgotten);

-- name: get_outbox
SELECT key, run_id, seq, attempt FROM outbox ORDER BY key;

-- name: submit
WITH head AS (
    UPDATE inbox_head SET last = last + 1 WHERE id = 1 RETURNING last
), put AS (
    INSERT INTO inbox SELECT last, $1 FROM head RETURNING id
)
-- Whoever tells something commits after all others who do: no operator tells anything.
SELECT id, pg_notify('durable_worker_inbox', current_schema()) FROM put;

-- name: get_inbox
SELECT id, body FROM inbox WHERE id > $1 ORDER BY id LIMIT $2;

-- name: get_dead_letter
SELECT * FROM dead_letters WHERE id = $1;

-- name: list_dead_letters
SELECT id, received_at, type, message_id, reason, ''::bytea, headers, queue, protocol, namespace,
    run_id, seq, task_id, size, last_seq, redriven_at, redrives
FROM dead_letters
WHERE ($1::text IS NULL OR namespace = $1)
    AND ($2::text IS NULL OR run_id = $2)
    AND ($3::text IS NULL
        OR (received_at, id) < (SELECT received_at, id FROM dead_letters WHERE id = $3))
ORDER BY received_at DESC, id DESC
LIMIT $4;

-- name: forget_dead_letters
WITH held AS MATERIALIZED (
    SELECT FROM (SELECT FROM lease WHERE token = $1 AND NOT is_released FOR SHARE) AS alone
    UNION ALL
    SELECT FROM (SELECT FROM members WHERE token = $1 FOR SHARE) AS one_of_many
), surplus AS (
    SELECT id FROM dead_letters ORDER BY received_at DESC, id DESC OFFSET $3
), forgotten AS (
    DELETE FROM dead_letters USING held
    WHERE received_at < $2 OR dead_letters.id IN (SELECT id FROM surplus)
    RETURNING 1
)
SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM forgotten);
