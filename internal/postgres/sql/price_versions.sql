-- $1 the number after which the versions begin.
SELECT earmark.price_version_json(v) FROM earmark.price_versions v WHERE v.id > $1 ORDER BY v.id
