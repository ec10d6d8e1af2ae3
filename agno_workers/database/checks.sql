-- name: facts
-- Facts of the catalogues that any role may read, also one without rights.
SELECT pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only,
    current_user::text AS role, current_database()::text AS database, pg_get_userbyid(coalesce(n.nspowner, d.datdba))::text AS owner,
    to_json(ARRAY(
        SELECT format('%s of schema agno', p) FROM unnest('{USAGE}'::text[]) p WHERE NOT has_schema_privilege(n.oid, p)
        UNION ALL
        SELECT format('%s on %s %s', p, CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.relname)
        FROM pg_class c, unnest(CASE WHEN c.relkind = 'S' THEN '{USAGE}' WHEN c.relname = 'alembic_version' THEN '{SELECT}'
                                     ELSE '{SELECT,INSERT,UPDATE,DELETE}'::text[] END) p
        WHERE c.relnamespace = n.oid AND (c.relkind IN ('r', 'p') AND NOT c.relispartition OR c.relname = 'chunk_id_seq')
          AND NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, p) ELSE has_table_privilege(c.oid, p) END
        UNION ALL
        SELECT format('EXECUTE of function %s', f.proname) FROM pg_proc f WHERE f.pronamespace = n.oid AND NOT has_function_privilege(f.oid, 'EXECUTE')
        UNION ALL
        SELECT 'TEMPORARY on the database' WHERE NOT has_database_privilege(d.oid, 'TEMPORARY')
    )) AS missing,
    EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'alembic_version') AS has_tables,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector
FROM pg_database d LEFT JOIN pg_namespace n ON n.nspname = 'agno' WHERE d.datname = current_database();

-- name: release
SELECT v.version_num AS revision, f.value AS functions, o.value AS oldest
FROM agno.alembic_version v LEFT JOIN agno.meta f ON f.key = 'functions' LEFT JOIN agno.meta o ON o.key = 'oldest';
