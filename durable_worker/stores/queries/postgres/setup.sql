-- name: find_schema
SELECT
    current_user AS name,
    to_regnamespace($1) IS NULL OR has_schema_privilege($1, 'USAGE') AS is_permitted,
    to_regclass('schema_version') IS NOT NULL AS has_version;

-- name: schema_version
SELECT version_num FROM schema_version;
