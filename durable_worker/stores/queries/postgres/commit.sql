-- name: commit
WITH held AS MATERIALIZED (
    SELECT FROM (
        SELECT FROM lease WHERE token = $1 AND writer = $2 AND NOT is_released FOR SHARE
    ) AS alone
    UNION ALL
    SELECT FROM (SELECT FROM members WHERE token = $1 AND writer = $2 FOR SHARE) AS one_of_many
), locked AS MATERIALIZED (
    -- Rows as they are now, whatever the statement saw when it began. Always in the same order.
    SELECT id, revision FROM runs WHERE id = ANY ($13::text[])
    ORDER BY id
    FOR NO KEY UPDATE
), stale AS MATERIALIZED (
    SELECT seen.id FROM unnest($13::text[], $14::bigint[]) AS seen (id, revision)
    LEFT JOIN locked ON locked.id = seen.id
    WHERE coalesce(locked.revision, 0) <> seen.revision
), allowed AS MATERIALIZED (
    SELECT FROM held WHERE NOT EXISTS (SELECT FROM stale)
), create_runs AS (
    -- One that somebody else has created meanwhile is an error, and nothing is written.
    INSERT INTO runs SELECT new.* FROM allowed, unnest($15::runs[]) AS new
), put_runs AS (
    INSERT INTO runs SELECT new.* FROM allowed, unnest($3::runs[]) AS new
    ON CONFLICT (id) DO UPDATE SET
        workflow = excluded.workflow,
        version = excluded.version,
        namespace = excluded.namespace,
        partition = excluded.partition,
        status = excluded.status,
        input = excluded.input,
        output = excluded.output,
        error = excluded.error,
        parent_run_id = excluded.parent_run_id,
        parent_seq = excluded.parent_seq,
        tags = excluded.tags,
        search_attributes = excluded.search_attributes,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at,
        turn_no = excluded.turn_no,
        task_id = excluded.task_id,
        is_dirty = excluded.is_dirty,
        recoveries = excluded.recoveries,
        revision = runs.revision + 1,
        ordered = excluded.ordered,
        rewound = greatest(runs.rewound, excluded.rewound)
), put_tags AS (
    -- A row that a run no longer bears out is passed over by whoever reads it.
    INSERT INTO run_tags SELECT new.namespace, tag, new.created_at, new.id
    FROM allowed, unnest($3::runs[] || $15::runs[]) AS new, unnest(new.tags) AS tag
    ON CONFLICT DO NOTHING
), remove_tags AS (
    -- Of runs as they were before: the statement sees none of its own changes. Each is found by its
    -- key, whatever is known of the size of a table.
    DELETE FROM run_tags WHERE ctid = ANY (ARRAY (
        SELECT kept.ctid
        FROM allowed, unnest($3::runs[]) AS new,
        LATERAL (SELECT * FROM runs WHERE id = new.id OFFSET 0) AS old,
        unnest(old.tags) AS gone,
        LATERAL (
            SELECT ctid FROM run_tags
            WHERE namespace = old.namespace AND tag = gone
                AND created_at = old.created_at AND id = old.id
            OFFSET 0
        ) AS kept
        WHERE gone <> ALL (new.tags) OR old.created_at <> new.created_at
    ))
), remove_checkpoints AS (
    DELETE FROM checkpoints USING allowed, unnest($4::text[], $5::bigint[]) AS gone (run_id, seq)
    WHERE checkpoints.run_id = gone.run_id AND checkpoints.seq = gone.seq
), put_checkpoints AS (
    INSERT INTO checkpoints SELECT
        new.run_id,
        new.seq,
        new.kind,
        new.name,
        new.status,
        new.input,
        new.output,
        new.error,
        new.attempt,
        new.retry,
        new.partition,
        new.fires_at,
        new.enqueued_at,
        new.started_at,
        new.finished_at,
        new.events,
        new.parallel_group,
        new.recoveries,
        new.resolved_as,
        -- Waits for signals are found by the namespace of their run, which never changes.
        CASE WHEN new.kind = 'signal' THEN
            coalesce(new.namespace, (SELECT namespace FROM runs WHERE id = new.run_id))
        END,
        $1,
        new.revision
    FROM allowed, unnest($6::checkpoints[]) AS new
    ON CONFLICT (run_id, seq) DO UPDATE SET
        kind = excluded.kind,
        name = excluded.name,
        status = excluded.status,
        input = excluded.input,
        output = excluded.output,
        error = excluded.error,
        attempt = excluded.attempt,
        retry = excluded.retry,
        partition = excluded.partition,
        fires_at = excluded.fires_at,
        enqueued_at = excluded.enqueued_at,
        started_at = excluded.started_at,
        finished_at = excluded.finished_at,
        events = excluded.events,
        parallel_group = excluded.parallel_group,
        recoveries = excluded.recoveries,
        resolved_as = excluded.resolved_as,
        namespace = excluded.namespace,
        operator = excluded.operator,
        revision = excluded.revision
), put_signals AS (
    INSERT INTO signals SELECT new.* FROM allowed, unnest($7::signals[]) AS new
    ON CONFLICT (id) DO UPDATE SET
        namespace = excluded.namespace,
        name = excluded.name,
        payload = excluded.payload,
        received_at = excluded.received_at,
        consumed_at = excluded.consumed_at
), put_outbox AS (
    INSERT INTO outbox SELECT new.key, new.run_id, new.seq, new.attempt, $1
    FROM allowed, unnest($8::outbox[]) AS new
    ON CONFLICT (key) DO UPDATE SET
        run_id = excluded.run_id,
        seq = excluded.seq,
        attempt = excluded.attempt,
        operator = excluded.operator
), remove_outbox AS (
    DELETE FROM outbox USING allowed, unnest($9::text[]) AS gone (key)
    WHERE outbox.key = gone.key AND (outbox.operator = $1 OR outbox.operator IS NULL
        OR outbox.operator NOT IN (SELECT token FROM members))
), take_inbox_ids AS (
    UPDATE inbox_head SET last = last + cardinality($10::bytea[])
    FROM allowed WHERE inbox_head.id = 1 AND cardinality($10::bytea[]) > 0
    RETURNING last - cardinality($10::bytea[]) AS before
), put_inbox AS (
    INSERT INTO inbox
    SELECT before + number, body
    FROM take_inbox_ids, unnest($10::bytea[]) WITH ORDINALITY AS new (body, number)
    WHERE before + number <> ALL ($11::bigint[])
), remove_inbox AS (
    DELETE FROM inbox USING allowed, unnest($11::bigint[]) AS gone (id)
    WHERE inbox.id = gone.id
), put_dead_letters AS (
    INSERT INTO dead_letters SELECT new.* FROM allowed, unnest($12::dead_letters[]) AS new
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
        redrives = greatest(dead_letters.redrives, excluded.redrives)
)
SELECT (SELECT count(*) FROM held), ARRAY (SELECT id FROM stale);
