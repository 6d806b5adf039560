SELECT earmark.preflight($1, $2, $3, $4, $5)
