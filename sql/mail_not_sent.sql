-- The next run tries again.
UPDATE alerts SET claimed_until = NULL WHERE id = %(id)s
