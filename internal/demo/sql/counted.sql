SELECT used + reserved FROM earmark_demo.accounts WHERE id = $1
