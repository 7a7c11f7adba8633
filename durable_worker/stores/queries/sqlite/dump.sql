-- name: runs
SELECT * FROM runs ORDER BY id;

-- name: checkpoints
SELECT * FROM checkpoints ORDER BY run_id, seq;

-- name: signals
SELECT * FROM signals ORDER BY id;

-- name: outbox
SELECT key, run_id, seq, attempt FROM outbox ORDER BY key;

-- name: inbox
SELECT body FROM inbox ORDER BY id;

-- name: dead_letters
SELECT * FROM dead_letters ORDER BY id;
