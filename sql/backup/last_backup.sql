-- When the last backup that was restored and compared was finished.
SELECT max(finished_at) FROM backup_history WHERE verified_at IS NOT NULL
