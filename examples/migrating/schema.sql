CREATE TABLE usage_charges (
    request_id text PRIMARY KEY,
    customer   text NOT NULL,
    period     date NOT NULL,
    tokens     bigint NOT NULL CHECK (tokens > 0),
    charged    boolean NOT NULL -- Earmark knows
);
