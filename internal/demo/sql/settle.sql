UPDATE earmark_demo.accounts SET reserved = reserved - $2, used = used + $2 WHERE id = $1
