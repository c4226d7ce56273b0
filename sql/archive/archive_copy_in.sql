COPY {staged} ({columns}) FROM STDIN (FORMAT csv, HEADER)
