UPDATE earmark_demo.accounts SET reserved = reserved + $2 WHERE id = $1 AND used + reserved + $2 <= limit_tokens RETURNING used + reserved
