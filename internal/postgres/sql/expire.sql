SELECT earmark.expire($1, $2, $3, $4)
