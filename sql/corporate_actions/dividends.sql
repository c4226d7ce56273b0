SELECT ex_date, value FROM corporate_actions WHERE symbol = %(symbol)s AND kind = 'dividend' ORDER BY ex_date
