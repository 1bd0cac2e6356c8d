-- View $2.$3 of migration $1 was refreshed ($4: why it failed), the target being live or not ($5).
UPDATE cutwater.materialized_view AS own
   SET error = $4,
       live = live OR ($5 AND $4::text IS NULL),
       place = CASE WHEN $4 IS NOT NULL THEN place
                    ELSE coalesce(place, (SELECT coalesce(max(place), 0) + 1 FROM cutwater.materialized_view AS other
                                           WHERE other.migration = own.migration)) END
 WHERE migration = $1 AND nsp = $2 AND name = $3
