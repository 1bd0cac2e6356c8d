SELECT format, fingerprint, source, source_label, target_label, phase,
       (extract(epoch FROM phase_since) * 1000000)::bigint,
       slot_position, epoch, lease_holder,
       coalesce(lease_until > clock_timestamp(), false),
       (extract(epoch FROM created_at) * 1000000)::bigint,
       verify, copied_until
  FROM cutwater.migration
 WHERE name = $1
