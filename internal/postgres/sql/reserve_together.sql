SELECT earmark.reserve_together($1, $2, 'workflow')
