-- +goose Up
-- Browsers that are signed in with a key.
CREATE TABLE earmark.sign_ins (
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32), -- SHA-256 of the cookie
    key_id     text COLLATE "C" NOT NULL REFERENCES earmark.keys,
    expires_at timestamptz NOT NULL
);

CREATE INDEX sign_ins_of_key_idx ON earmark.sign_ins (key_id, expires_at);
CREATE INDEX sign_ins_expiry_idx ON earmark.sign_ins (expires_at);

-- +goose Down
DROP TABLE earmark.sign_ins;
DELETE FROM earmark.function_sets; -- the next `earmark migrate up` makes the functions anew
