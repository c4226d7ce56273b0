SELECT to_regclass('backup_history') IS NOT NULL
