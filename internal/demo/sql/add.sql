UPDATE earmark_demo.accounts SET used = used + $2 WHERE id = $1 RETURNING used
