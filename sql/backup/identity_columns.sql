SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = %(schema)s AND is_identity = 'YES'
