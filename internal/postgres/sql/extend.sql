SELECT earmark.extend($1, $2, $3, $4, $5)
