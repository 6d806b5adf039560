SELECT earmark.adopt($1, $2, $3, $4)
