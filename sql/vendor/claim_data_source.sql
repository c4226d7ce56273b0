-- The first writer decides what this database holds; everybody is told what that is.
WITH claimed AS (
    INSERT INTO data_source (source) VALUES (%(source)s) ON CONFLICT DO NOTHING RETURNING source
)
SELECT source FROM claimed UNION ALL SELECT source FROM data_source
