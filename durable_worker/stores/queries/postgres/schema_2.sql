-- Listings go by status, whatever they ask for: an index without it is read past all others.
DROP INDEX runs_by_age;
DROP INDEX runs_of_namespace;

-- The revision of its run that a row came with: who knows that one needs only what came later.
ALTER TABLE checkpoints ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
-- The last revision that took checkpoints away: who knows only older ones needs all.
ALTER TABLE runs ADD COLUMN rewound BIGINT NOT NULL DEFAULT 0;
