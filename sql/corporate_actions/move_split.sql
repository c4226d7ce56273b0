-- The vendor announced another ex-date than the one that its prices had shown.
UPDATE corporate_actions SET ex_date = %(ex_date)s
WHERE symbol = %(symbol)s AND kind = 'split' AND ex_date = %(replaces)s
