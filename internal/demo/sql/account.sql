INSERT INTO earmark_demo.accounts (limit_tokens) VALUES ($1) RETURNING id
