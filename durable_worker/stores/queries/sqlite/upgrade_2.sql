ALTER TABLE dead_letters ADD COLUMN queue TEXT;
ALTER TABLE dead_letters ADD COLUMN protocol INTEGER;
ALTER TABLE dead_letters ADD COLUMN namespace TEXT NOT NULL DEFAULT 'default';
ALTER TABLE dead_letters ADD COLUMN run_id TEXT;
ALTER TABLE dead_letters ADD COLUMN seq INTEGER;
ALTER TABLE dead_letters ADD COLUMN task_id TEXT;
ALTER TABLE dead_letters ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN last_seq INTEGER;
ALTER TABLE dead_letters ADD COLUMN redriven_at INTEGER;
ALTER TABLE dead_letters ADD COLUMN redrives INTEGER NOT NULL DEFAULT 0;

CREATE INDEX dead_letters_of_run ON dead_letters (run_id) WHERE run_id IS NOT NULL;

UPDATE dead_letters SET
    size = length(body),
    queue = CASE
        WHEN type IS NULL AND reason LIKE 'an input in the database that %' THEN 'inbox'
    END;

UPDATE dead_letters SET
    run_id = (SELECT id FROM runs WHERE id = json_extract(CAST(body AS TEXT), '$.runId')),
    seq = CASE json_type(CAST(body AS TEXT), '$.seq')
        WHEN 'integer' THEN json_extract(CAST(body AS TEXT), '$.seq')
    END,
    task_id = CASE json_type(CAST(body AS TEXT), '$.taskId')
        WHEN 'text' THEN json_extract(CAST(body AS TEXT), '$.taskId')
    END
WHERE json_valid(CAST(body AS TEXT));

UPDATE dead_letters SET
    namespace = (SELECT namespace FROM runs WHERE id = run_id)
WHERE run_id IS NOT NULL;

UPDATE dead_letters SET seq = NULL, task_id = NULL WHERE run_id IS NULL;

INSERT INTO schema_version VALUES (2);
