SELECT earmark.commit_together($1)
