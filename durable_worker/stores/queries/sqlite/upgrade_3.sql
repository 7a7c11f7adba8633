-- The runs that exist go by markers.
ALTER TABLE runs ADD COLUMN ordered INTEGER;
ALTER TABLE checkpoints ADD COLUMN resolved_as INTEGER;

UPDATE runs SET ordered = -1;

INSERT INTO schema_version VALUES (3);
