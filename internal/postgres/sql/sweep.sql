SELECT earmark.sweep($1, $2, $3, $4)
