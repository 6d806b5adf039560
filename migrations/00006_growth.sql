-- +goose Up
-- What keeps the ledger fast as it grows: overdue reservations are found by the
-- budgets that they are in the way of, many expire in a few statements, and what
-- was settled long ago is pruned.

-- When a held reservation with the policy 'release' is overdue; null for any
-- other, so that the index holds no more than what is held. earmark.reserve and
-- earmark.commit see to it as well, in the next migration.
ALTER TABLE earmark.reservation_budgets ADD COLUMN IF NOT EXISTS overdue_at timestamptz;
UPDATE earmark.reservation_budgets s SET overdue_at = r.expires_at FROM earmark.reservations r
WHERE r.id = s.reservation_id AND r.state = 'held' AND r.on_expiry = 'release';
CREATE INDEX IF NOT EXISTS reservation_budgets_overdue_idx ON earmark.reservation_budgets (budget_id, window_start, overdue_at)
    WHERE overdue_at IS NOT NULL;

-- +goose StatementBegin
-- An extension, and a policy that changes, are rare; what ends a hold clears
-- overdue_at itself.
CREATE OR REPLACE FUNCTION earmark.follow_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE earmark.reservation_budgets SET overdue_at = CASE WHEN NEW.state = 'held' AND NEW.on_expiry = 'release' THEN NEW.expires_at END
    WHERE reservation_id = NEW.id;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE OR REPLACE TRIGGER reservations_follow_expiry AFTER UPDATE OF expires_at, on_expiry ON earmark.reservations
    FOR EACH ROW WHEN ((OLD.expires_at, OLD.on_expiry) IS DISTINCT FROM (NEW.expires_at, NEW.on_expiry))
    EXECUTE FUNCTION earmark.follow_expiry();

-- +goose StatementBegin
-- Gives back what an open reservation holds, in the order of locks, and moves it
-- to p_state. The workflow is told later when somebody else did this (refresh_due).
CREATE OR REPLACE FUNCTION earmark.give_back(r earmark.reservations, p_state text, p_kind text, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
DECLARE
    s earmark.reservation_budgets;
BEGIN
    FOR s IN SELECT * FROM earmark.reservation_budgets WHERE reservation_id = r.id ORDER BY budget_id, window_start LOOP
        PERFORM earmark.post(p_kind, r.tenant, r.id, s.budget_id, s.window_start, -s.reserved, 0, NULL, p_actor, p_reason);
    END LOOP;
    UPDATE earmark.reservation_budgets SET overdue_at = NULL WHERE reservation_id = r.id AND overdue_at IS NOT NULL;
    UPDATE earmark.reservations SET state = p_state, settled_at = clock_timestamp(), reason = p_reason, orphan = false,
        refresh_due = p_actor <> 'workflow' OR r.state = 'review' -- in review no timer looks again
    WHERE id = r.id RETURNING * INTO r;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Applies the expiry policies of held reservations whose rows are locked. Each
-- balance changes once for all of them, and each has its own entries all the same.
CREATE OR REPLACE FUNCTION earmark.expire_all(p_ids text[], p_actor text, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM earmark.windows w
    WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (p_ids))
    ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE;

    WITH shares AS (
        SELECT s.budget_id, s.window_start, s.reserved, CASE r.on_expiry WHEN 'commit' THEN s.reserved ELSE 0 END AS charged, r.id, r.tenant, r.expires_at
        FROM earmark.reservations r JOIN earmark.reservation_budgets s ON s.reservation_id = r.id
        WHERE r.id = ANY (p_ids) AND r.on_expiry <> 'review'
    ), changed AS (
        UPDATE earmark.windows w SET reserved = w.reserved - d.reserved, committed = w.committed + d.charged
        FROM (SELECT budget_id, window_start, sum(reserved) AS reserved, sum(charged) AS charged FROM shares GROUP BY 1, 2) AS d
        WHERE w.budget_id = d.budget_id AND w.window_start = d.window_start
        RETURNING w.budget_id, w.window_start, w.reserved + d.reserved AS reserved_before, w.committed - d.charged AS committed_before
    )
    INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta,
                                 reserved_after, committed_after, actor, reason)
    SELECT 'expire', tenant, id, budget_id, window_start, -reserved, charged,
           reserved_before - sum(reserved) OVER chain, committed_before + sum(charged) OVER chain, p_actor, p_reason
    FROM shares JOIN changed USING (budget_id, window_start)
    WINDOW chain AS (PARTITION BY budget_id, window_start ORDER BY expires_at, id)
    ORDER BY expires_at, id, budget_id;

    INSERT INTO earmark.entries (kind, tenant, reservation_id, actor, reason)
    SELECT 'review', tenant, id, p_actor, p_reason FROM earmark.reservations WHERE id = ANY (p_ids) AND on_expiry = 'review' ORDER BY expires_at, id;

    UPDATE earmark.reservation_budgets s SET committed = CASE r.on_expiry WHEN 'commit' THEN s.reserved ELSE 0 END, overdue_at = NULL
    FROM earmark.reservations r WHERE r.id = ANY (p_ids) AND s.reservation_id = r.id AND r.on_expiry <> 'review';

    UPDATE earmark.reservations SET state = 'review', reason = p_reason WHERE id = ANY (p_ids) AND on_expiry = 'review';
    UPDATE earmark.reservations SET state = CASE on_expiry WHEN 'commit' THEN 'committed' ELSE 'expired' END,
        usage = CASE on_expiry WHEN 'commit' THEN amounts END, estimated = on_expiry = 'commit',
        settled_at = clock_timestamp(), reason = p_reason, orphan = false, refresh_due = p_actor <> 'workflow'
    WHERE id = ANY (p_ids) AND on_expiry <> 'review';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Applies the expiry policy of a held reservation whose row is locked.
CREATE OR REPLACE FUNCTION earmark.apply_expiry(r earmark.reservations, p_actor text, p_reason text) RETURNS earmark.reservations
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM earmark.expire_all(ARRAY [r.id], p_actor, p_reason);
    SELECT * INTO r FROM earmark.reservations WHERE id = r.id;
    RETURN r;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires up to p_most reservations that are overdue by more than p_grace_ms, and
-- returns their ids. Rows that somebody else works on are left to them; windows
-- are locked in order for all of them together, so no deadlock can arise (R6).
CREATE OR REPLACE FUNCTION earmark.sweep(p_grace_ms bigint, p_most integer, p_actor text, p_reason text) RETURNS text[]
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    v_due timestamptz := clock_timestamp() - p_grace_ms * interval '1 millisecond'; -- in a variable, or no index would find it
    v_ids text[];
BEGIN
    PERFORM earmark.require_read_committed();
    SELECT array_agg(id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations WHERE state = 'held' AND expires_at < v_due
        ORDER BY expires_at, id LIMIT p_most FOR NO KEY UPDATE SKIP LOCKED
    ) AS overdue;
    IF v_ids IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM earmark.expire_all(v_ids, p_actor, p_reason);
    RETURN v_ids;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- How many overdue reservations an admission expires in each budget that it does
-- not fit into. The sweeper does the rest.
CREATE OR REPLACE FUNCTION earmark.most_in_the_way() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 100 $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Expires overdue 'release' reservations that stand in the way of an admission
-- which holds the locks of p_touched, and returns how many. It waits for no lock:
-- what somebody else works on is left to them.
CREATE OR REPLACE FUNCTION earmark.expire_in_the_way(p_touched earmark.touched[], p_actor text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    t     earmark.touched;
    v_now timestamptz := clock_timestamp();
    v_ids text[] := '{}';
BEGIN
    FOREACH t IN ARRAY p_touched LOOP
        v_ids := v_ids || ARRAY(
            SELECT r.id FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id
            WHERE s.budget_id = t.budget_id AND s.window_start = t.window_start AND s.overdue_at < v_now
              AND r.state = 'held' AND r.on_expiry = 'release' AND r.expires_at < v_now AND r.id <> ALL (v_ids)
            ORDER BY s.overdue_at, r.id LIMIT earmark.most_in_the_way() FOR UPDATE OF r SKIP LOCKED);
    END LOOP;
    WITH locked AS (
        SELECT w.budget_id, w.window_start FROM earmark.windows w
        WHERE (w.budget_id, w.window_start) IN (SELECT s.budget_id, s.window_start FROM earmark.reservation_budgets s WHERE s.reservation_id = ANY (v_ids))
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT coalesce(array_agg(id), '{}') INTO v_ids FROM unnest(v_ids) AS id
    WHERE NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s
                      WHERE s.reservation_id = id AND (s.budget_id, s.window_start) NOT IN (SELECT * FROM locked));
    IF v_ids <> '{}' THEN
        PERFORM earmark.expire_all(v_ids, p_actor, 'overdue, and in the way of an admission');
    END IF;
    RETURN cardinality(v_ids);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Whether p_amounts would fit now, without a lock and without a change: 'applied',
-- 'denied', 'no_budget', 'unit_not_budgeted' or 'overflow'. A yes is only ever
-- decided by earmark.reserve. Overdue 'release' reservations do not stand in the
-- way, since an admission would expire them.
CREATE OR REPLACE FUNCTION earmark.decide(p_tenant text, p_scopes text[], p_amounts jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_touched earmark.touched[];
    v_answer  jsonb;
    v_now     timestamptz := clock_timestamp();
BEGIN
    SELECT array_agg(ROW (b.id, b.scope, b.unit, b.period, b.limit_amount,
                          CASE b.enforcement WHEN 'hard' THEN b.limit_amount ELSE b.soft_ceiling END,
                          w.window_start, w.window_end, coalesce(s.reserved, 0), coalesce(s.committed, 0))::earmark.touched ORDER BY b.id)
    INTO v_touched
    FROM earmark.budgets b CROSS JOIN LATERAL earmark.window_bounds(b.period, b.timezone, clock_timestamp()) w
         LEFT JOIN earmark.windows s ON s.budget_id = b.id AND s.window_start = w.window_start
    WHERE b.tenant = p_tenant AND b.archived_at IS NULL AND b.scope = ANY (earmark.scope_paths(p_scopes))
      AND b.unit = ANY (earmark.units(p_amounts));

    v_answer := earmark.unmet(p_tenant, p_scopes, earmark.units(p_amounts), v_touched);
    IF v_answer IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    v_answer := earmark.misfit(v_touched, p_amounts);
    IF v_answer IS NOT NULL THEN
        FOR i IN 1 .. cardinality(v_touched) LOOP
            v_touched[i].reserved := v_touched[i].reserved - coalesce((
                SELECT sum(reserved) FROM (
                    SELECT s.reserved FROM earmark.reservation_budgets s
                    WHERE s.budget_id = v_touched[i].budget_id AND s.window_start = v_touched[i].window_start AND s.overdue_at < v_now
                    ORDER BY s.overdue_at LIMIT earmark.most_in_the_way()
                ) AS in_the_way), 0);
        END LOOP;
        v_answer := earmark.misfit(v_touched, p_amounts);
    END IF;
    RETURN coalesce(v_answer, jsonb_build_object('outcome', 'applied'));
END $$;
-- +goose StatementEnd

-- An entry of the kind 'checkpoint' stands for those of pruned reservations in one
-- window, at the place of the last of them. It says how many there were of each.
ALTER TABLE earmark.entries ADD COLUMN pruned_entries bigint, ADD COLUMN pruned_reservations bigint;
ALTER TABLE earmark.entries DROP CONSTRAINT entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('reserve', 'commit', 'release', 'expire', 'charge', 'extend', 'review', 'reject', 'refuse', 'budget', 'adopt', 'checkpoint')) NOT VALID,
    -- Nothing that is held is pruned.
    ADD CONSTRAINT entries_checkpoint_check CHECK (CASE kind WHEN 'checkpoint' THEN window_start IS NOT NULL AND reservation_id IS NULL
        AND reserved_delta = 0 AND pruned_entries > 0 AND pruned_reservations > 0 ELSE pruned_entries IS NULL AND pruned_reservations IS NULL END) NOT VALID;
CREATE UNIQUE INDEX entries_checkpoint_key ON earmark.entries (budget_id, window_start) WHERE kind = 'checkpoint';

-- +goose StatementBegin
-- Entries are append-only, but for earmark.prune, which alone has this setting,
-- and only while it runs. What it deletes is checked by earmark.check_pruned.
CREATE OR REPLACE FUNCTION earmark.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('earmark.pruning', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- How long a settled reservation is kept at least: for as long its idempotency key answers.
CREATE FUNCTION earmark.least_kept() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '720 hours' $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Refuses a deletion of entries, whoever tries it, unless they are those of
-- reservations that were settled long ago, or former checkpoints, and in every
-- window a checkpoint stands for just what was deleted.
CREATE FUNCTION earmark.check_pruned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM gone g LEFT JOIN earmark.reservations r ON r.id = g.reservation_id
               WHERE g.kind <> 'checkpoint' AND (r.settled_at < clock_timestamp() - earmark.least_kept()) IS NOT TRUE) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what was not settled long ago is refused (R4)' USING ERRCODE = 'restrict_violation';
    END IF;
    IF EXISTS (SELECT 1
               FROM (SELECT budget_id, window_start, sum(reserved_delta) AS reserved, sum(committed_delta) AS committed, max(id) AS id,
                            sum(coalesce(pruned_entries, 1)) AS entries FROM gone WHERE window_start IS NOT NULL GROUP BY 1, 2) AS g
                    LEFT JOIN earmark.entries e ON e.budget_id = g.budget_id AND e.window_start = g.window_start AND e.kind = 'checkpoint'
               WHERE (g.id, g.reserved, g.committed, g.entries) IS DISTINCT FROM (e.id, e.reserved_delta, e.committed_delta, e.pruned_entries)) THEN
        RAISE EXCEPTION 'entries are append-only: DELETE of what no checkpoint stands for is refused (R4)' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER entries_pruned AFTER DELETE ON earmark.entries REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION earmark.check_pruned();
ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_pruned;

-- +goose StatementBegin
-- Up to p_most reservations that were made before p_before and after the one at
-- (p_after_at, p_after_id), oldest first, and whether each can be pruned: it was
-- settled before p_before, its workflow knows it, and every window that it is in
-- is closed or never closes.
CREATE FUNCTION earmark.prunable(p_tenant text, p_before timestamptz, p_after_at timestamptz, p_after_id text, p_most integer)
    RETURNS TABLE (id text, created_at timestamptz, prunable boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
        SELECT r.id, r.created_at, r.state NOT IN ('held', 'review') AND r.settled_at < p_before AND NOT r.refresh_due
            AND NOT EXISTS (SELECT 1 FROM earmark.reservation_budgets s JOIN earmark.windows w ON w.budget_id = s.budget_id AND w.window_start = s.window_start
                            WHERE s.reservation_id = r.id AND w.window_end > v_now)
        FROM earmark.reservations r
        WHERE r.tenant = p_tenant AND r.created_at < p_before AND (r.created_at, r.id) > (p_after_at, p_after_id)
        ORDER BY r.created_at, r.id LIMIT p_most;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Looks at up to p_most reservations, as earmark.prunable has them, and removes
-- those that can be: the row, its shares and its entries. Balances stay as they
-- are, since a checkpoint in each window takes the place of what was removed (R3).
-- Answers how many were looked at and removed, and the last of them to go on
-- after; 'busy' where another prune is at work. With p_dry nothing is removed.
CREATE FUNCTION earmark.prune(p_tenant text, p_keep_ms bigint, p_after_at timestamptz, p_after_id text, p_most integer, p_dry boolean, p_actor text) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1s' SET earmark.pruning = 'on' AS $$
DECLARE
    v_before  timestamptz := clock_timestamp() - p_keep_ms * interval '1 millisecond';
    v_ids     text[];
    v_former  bigint[]; -- checkpoints that there are already
    v_entries bigint;
    v_answer  jsonb;
BEGIN
    PERFORM earmark.require_read_committed();
    IF p_keep_ms * interval '1 millisecond' < earmark.least_kept() THEN
        RAISE EXCEPTION 'settled reservations are kept for % at least', earmark.least_kept() USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('earmark.prune', 0)) THEN
        RETURN jsonb_build_object('busy', true);
    END IF;

    SELECT jsonb_build_object('looked_at', count(*), 'last_at', max(p.created_at), 'last_id', (array_agg(p.id ORDER BY p.created_at DESC, p.id DESC))[1]),
           array_agg(p.id) FILTER (WHERE p.prunable)
    INTO v_answer, v_ids
    FROM earmark.prunable(p_tenant, v_before, p_after_at, p_after_id, p_most) p;
    IF p_dry THEN
        RETURN v_answer || jsonb_build_object('reservations', coalesce(cardinality(v_ids), 0),
            'entries', (SELECT count(*) FROM earmark.entries WHERE reservation_id = ANY (v_ids)));
    END IF;

    -- A late commit may have been faster, or may be at work now: those are left.
    SELECT array_agg(r.id) INTO v_ids FROM (
        SELECT id FROM earmark.reservations WHERE id = ANY (v_ids) AND settled_at < v_before AND NOT refresh_due FOR UPDATE SKIP LOCKED
    ) AS r;
    SELECT array_agg(e.id) INTO v_former
    FROM (SELECT DISTINCT budget_id, window_start FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids)) AS s
         JOIN earmark.entries e ON e.budget_id = s.budget_id AND e.window_start = s.window_start AND e.kind = 'checkpoint';

    WITH gone AS (
        DELETE FROM earmark.entries WHERE reservation_id = ANY (v_ids) OR id = ANY (v_former) RETURNING *
    ), checkpoints AS (
        INSERT INTO earmark.entries (id, kind, tenant, budget_id, window_start, reserved_delta, committed_delta, reserved_after, committed_after,
                                     pruned_entries, pruned_reservations, actor, reason)
        OVERRIDING SYSTEM VALUE
        SELECT c.*, p_actor, format('stands for %s entries of %s reservations', c.entries, c.reservations)
        FROM (SELECT max(id), 'checkpoint', tenant, budget_id, window_start, sum(reserved_delta), sum(committed_delta),
                     (array_agg(reserved_after ORDER BY id DESC))[1], (array_agg(committed_after ORDER BY id DESC))[1],
                     sum(coalesce(pruned_entries, 1)) AS entries, count(DISTINCT reservation_id) + coalesce(sum(pruned_reservations), 0) AS reservations
              FROM gone WHERE window_start IS NOT NULL GROUP BY tenant, budget_id, window_start) AS c
    )
    SELECT count(*) FILTER (WHERE kind <> 'checkpoint') INTO v_entries FROM gone;
    DELETE FROM earmark.reservation_budgets WHERE reservation_id = ANY (v_ids);
    DELETE FROM earmark.reservations WHERE id = ANY (v_ids);
    RETURN v_answer || jsonb_build_object('reservations', coalesce(cardinality(v_ids), 0), 'entries', v_entries);
END $$;
-- +goose StatementEnd

-- +goose Down
-- What the release before calls stays: it works there as well.
DROP FUNCTION earmark.prune, earmark.prunable;
DROP TRIGGER entries_pruned ON earmark.entries;
DROP FUNCTION earmark.check_pruned, earmark.least_kept;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION earmark.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd
ALTER TABLE earmark.entries DROP COLUMN pruned_entries, DROP COLUMN pruned_reservations;
DROP INDEX earmark.entries_checkpoint_key;
