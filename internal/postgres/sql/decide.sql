SELECT earmark.decide($1, $2, $3)
