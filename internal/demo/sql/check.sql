SELECT used FROM earmark_demo.accounts WHERE id = $1
