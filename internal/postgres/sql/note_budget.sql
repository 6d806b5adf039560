SELECT earmark.note('budget', $1, NULL, $2, $3, $4)
