-- name: members
SELECT token, instance_id, host, machine, pid, process_start, expires_at,
    expires_at <= extract(epoch FROM clock_timestamp()) * 1000 AS has_expired
FROM members ORDER BY token;

-- name: drop_members
DELETE FROM members WHERE token IN (
    SELECT token FROM members
    WHERE token = ANY ($1::bigint[])
        OR expires_at <= extract(epoch FROM clock_timestamp()) * 1000 AND token <> $2
    FOR UPDATE SKIP LOCKED
)
RETURNING token;

-- name: next_token
UPDATE lease SET token = token + 1, is_released = true WHERE id = 1 RETURNING token;

-- name: join
INSERT INTO members VALUES (
    $1, 0, $2, $3, $4, $5, $6, extract(epoch FROM clock_timestamp()) * 1000 + $7::bigint
);

-- name: adopt_outbox
UPDATE outbox SET operator = $1 WHERE key IN (
    SELECT key FROM outbox
    WHERE operator IS NULL OR operator NOT IN (SELECT token FROM members)
    FOR UPDATE SKIP LOCKED
)
RETURNING key, run_id, seq, attempt;

-- name: owed_by
SELECT key, run_id, seq, attempt FROM outbox WHERE operator = $1;

-- name: load_newer
WITH wanted AS MATERIALIZED (
    SELECT runs.id, CASE WHEN runs.rewound > known.revision THEN 0 ELSE known.revision END AS since
    FROM unnest($1::text[], $2::bigint[]) AS known (id, revision)
    JOIN runs ON runs.id = known.id AND runs.revision <> known.revision
)
SELECT wanted.since, runs AS run, NULL::checkpoints AS checkpoint
FROM wanted JOIN runs ON runs.id = wanted.id
UNION ALL
(
    SELECT wanted.since, NULL::runs, checkpoints
    FROM wanted JOIN checkpoints ON checkpoints.run_id = wanted.id
        AND (wanted.since = 0 OR checkpoints.revision > wanted.since)
    ORDER BY run_id, seq
);

-- name: own_due_timers
SELECT run_id, seq, fires_at FROM checkpoints
WHERE status = 'pending' AND fires_at IS NOT NULL AND fires_at <= $2
    AND (operator = $1 OR fires_at <= $3)
ORDER BY fires_at, run_id, seq
LIMIT $4;

-- name: own_next_timer
SELECT
    (
        SELECT min(fires_at) FROM checkpoints
        WHERE status = 'pending' AND fires_at IS NOT NULL AND operator = $1
    ),
    (SELECT min(fires_at) FROM checkpoints WHERE status = 'pending' AND fires_at IS NOT NULL);

-- name: take_inbox
UPDATE inbox SET operator = $1 WHERE id IN (
    SELECT id FROM inbox
    WHERE operator IS NULL OR operator NOT IN (SELECT token FROM members) OR operator = $2
    ORDER BY id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
RETURNING id, body;

-- name: ended_runs
SELECT * FROM runs
WHERE id = ANY ($1::text[]) AND status IN ('completed', 'failed', 'cancelled', 'dead');

-- name: lock_signals
SELECT set_config('idle_in_transaction_session_timeout', '5s', true),
    (SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::bigint[]) AS key);

-- name: signal_conflicts
SELECT
    EXISTS (SELECT FROM signals WHERE id = ANY ($1::text[]))
    OR (
        SELECT count(*) FROM signals WHERE id = ANY ($2::text[]) AND consumed_at IS NULL
    ) < cardinality($2::text[])
    OR EXISTS (
        SELECT FROM unnest($3::text[], $4::text[]) AS kept (namespace, name)
        JOIN checkpoints AS waiting ON waiting.status = 'pending' AND waiting.kind = 'signal'
            AND waiting.namespace = kept.namespace AND waiting.name = kept.name
        WHERE NOT EXISTS (
            SELECT FROM unnest($5::text[], $6::bigint[]) AS resolved (run_id, seq)
            WHERE resolved.run_id = waiting.run_id AND resolved.seq = waiting.seq
        )
    )
    OR EXISTS (
        SELECT FROM unnest($7::text[], $8::text[]) AS awaited (namespace, name)
        JOIN signals ON signals.consumed_at IS NULL
            AND signals.namespace = awaited.namespace AND signals.name = awaited.name
        WHERE signals.id <> ALL ($2::text[])
    );
